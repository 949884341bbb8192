"""A reward in one file outside the project: the right answer, and a bonus for a please.

reward: {functions: [{type: "my_reward:Polite", bonus: 0.5}]}
"""

from __future__ import annotations

from pydantic import Field

from rollout.rewards.base import Reward
from rollout.trajectory import Prompt, Trajectory


class Polite(Reward):
    """1 for the right answer, and a bonus for a please."""

    class Config(Reward.Config):
        """Options."""

        bonus: float = Field(0.1, description="Reward of a please.")

    async def __call__(self, prompt: Prompt, trajectory: Trajectory) -> float:
        """See :class:`Reward`."""
        right = trajectory.response_text.strip() == prompt.reference
        return float(right + self.config.bonus * ("please" in trajectory.response_text))
