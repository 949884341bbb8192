"""Scores that arrive late."""

from __future__ import annotations

import random

from pydantic import Field, model_validator

from rollout.noise.base import RewardNoise
from rollout.trajectory import Prompt, Trajectory


class Delay(RewardNoise):
    """The score is right but arrives some updates late; the responses it belongs to have aged by then.

    The delay is uniform on min_updates .. max_updates. It is counted from the weight version that sampled the response;
    a group waits for its slowest score. Studied for 1 to 8 updates. Source: a standard model, no paper's own.
    """

    class Config(RewardNoise.Config):
        """Options of this noise model."""

        min_updates: int = Field(1, ge=0, description="Shortest delay, in weight updates.")
        max_updates: int = Field(1, ge=0, description="Longest delay, in weight updates; at most max_staleness.")

        @model_validator(mode="after")
        def _ordered(self) -> Delay.Config:
            if self.min_updates > self.max_updates:
                raise ValueError(f"'min_updates' {self.min_updates} must not be above 'max_updates' {self.max_updates}")
            return self

    config: Delay.Config

    def delay_updates(self, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> int:
        """Updates by which the score is late."""
        return rng.randint(self.config.min_updates, self.config.max_updates)

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float:
        """The score as it is."""
        return reward
