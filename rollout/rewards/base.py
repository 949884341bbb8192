"""What a reward function is."""

from __future__ import annotations

from abc import abstractmethod

from pydantic import Field

from rollout.component import Component, StrictModel
from rollout.trajectory import Prompt, Trajectory


class Reward(Component):
    """Scores one trajectory. May be slow and may raise: the reward service counts and contains failures."""

    class Config(StrictModel):
        """Options every reward has."""

        weight: float = Field(1.0, description="Factor of this reward in the sum.")

    @abstractmethod
    async def __call__(self, prompt: Prompt, trajectory: Trajectory) -> float:
        """The clean score, a finite float; higher is better."""
