"""A noise model in one file outside the project: a grader that prefers long answers.

reward: {noise: [{type: "my_noise:VerbosityBias", per_token: 1.0e-3}]}
"""

from __future__ import annotations

import random

from pydantic import Field

from rollout.noise.base import RewardNoise
from rollout.trajectory import Prompt, Trajectory


class VerbosityBias(RewardNoise):
    """Adds ``per_token`` times the response's length."""

    class Config(RewardNoise.Config):
        """Options."""

        per_token: float = Field(1e-3, description="Reward for each sampled token.")

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float:
        """See :class:`RewardNoise`. Nothing random: this judge is wrong in the same way each time."""
        return float(reward + self.config.per_token * trajectory.num_response_tokens)
