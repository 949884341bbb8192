"""Graders with a coarse or a short scale, such as language models that judge from 1 to 5. Nothing is drawn."""

from __future__ import annotations

import math
import random

from pydantic import Field, model_validator

from rollout.noise.base import RewardNoise
from rollout.trajectory import Prompt, Trajectory


class ScaleConfig(RewardNoise.Config):
    """The two ends of a scale."""

    low: float = Field(0.0, description="Lowest score the grader gives, in score units.")
    high: float = Field(1.0, description="Highest score the grader gives, in score units.")

    @model_validator(mode="after")
    def _ordered(self) -> ScaleConfig:
        if not self.low < self.high:
            raise ValueError(f"'low' must be below 'high' (got {self.low:g} and {self.high:g})")
        return self


def clip(reward: float, scale: ScaleConfig) -> float:
    """``reward``, or the end of the scale that it lies beyond."""
    return min(max(reward, scale.low), scale.high)


class Quantised(RewardNoise):
    """r goes to the nearest of n evenly spaced levels from ``low`` to ``high``; half way up to the higher one.

    Studied for 2 to 10 levels. Source: a model of language models as judges; the form is our choice.
    """

    class Config(ScaleConfig):
        """Options of this noise model."""

        levels: int = Field(ge=2, le=1_000_000, description="Number of levels, both ends included.")

    config: Quantised.Config

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float:
        """The level nearest to the score."""
        low, high, intervals = self.config.low, self.config.high, self.config.levels - 1
        index = math.floor((clip(reward, self.config) - low) / (high - low) * intervals + 0.5)
        # The end itself, not low + (high - low), which may miss it by a rounding error.
        return high if index == intervals else low + (high - low) * index / intervals


class Saturated(RewardNoise):
    """r clipped to [low, high]: beyond the ends, better and worse look alike.

    Source: a model of language models as judges; the form is our choice.
    """

    class Config(ScaleConfig):
        """Options of this noise model."""

    config: Saturated.Config

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float:
        """The clipped score."""
        return clip(reward, self.config)
