"""A judge that likes long answers."""

from __future__ import annotations

import random

from pydantic import Field

from rollout.component import StrictModel
from rollout.noise.base import RewardNoise
from rollout.trajectory import Prompt, Trajectory


class LengthBias(RewardNoise):
    """r + bias * reward_std * (length - mean_tokens) / std_tokens, length in sampled tokens.

    Range of bias .1 to 1 (negative for a judge that likes short answers). Mean and standard deviation of lengths are
    options, not running statistics, so that the score does not depend on what a worker saw before. Watch
    ``rollout/response_tokens_mean`` while training with it.
    """

    class Config(StrictModel):
        """Options of this noise model."""

        bias: float = Field(description="Gain of one standard deviation of length, in units of reward_std.")
        mean_tokens: float = Field(ge=0.0, description="Response length that earns nothing extra.")
        std_tokens: float = Field(gt=0.0, description="Standard deviation of response lengths.")
        reward_std: float = Field(1.0, gt=0.0, description="Standard deviation of clean scores.")

    config: LengthBias.Config

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float:
        deviation = (trajectory.num_response_tokens - self.config.mean_tokens) / self.config.std_tokens
        return reward + self.config.bias * self.config.reward_std * deviation
