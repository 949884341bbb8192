"""Judges with a coarse or short scale. Deterministic."""

from __future__ import annotations

import math
import random

from pydantic import Field, model_validator

from rollout.component import StrictModel
from rollout.noise.base import RewardNoise
from rollout.trajectory import Prompt, Trajectory


class _Bounded(RewardNoise):
    """A scale with two ends."""

    class Config(StrictModel):
        """Options of a scale."""

        low: float = Field(0.0, description="Lowest score of the scale.")
        high: float = Field(1.0, description="Highest score of the scale.")

        @model_validator(mode="after")
        def _ordered(self) -> _Bounded.Config:
            if self.low >= self.high:
                raise ValueError(f"low {self.low} must be below high {self.high}")
            return self

    config: _Bounded.Config

    def _clip(self, reward: float) -> float:
        return min(self.config.high, max(self.config.low, reward))


class Saturated(_Bounded):
    """Clips the score to [low, high]."""

    config: _Bounded.Config

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float:
        return self._clip(reward)


class Quantised(_Bounded):
    """Clips to [low, high] and rounds to the nearest of ``levels`` evenly spaced scores, halves up. Range 2 to 10."""

    class Config(_Bounded.Config):
        """Options of this noise model."""

        levels: int = Field(ge=2, le=1_000_000, description="Number of scores on the scale, both ends included.")

    config: Quantised.Config

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float:
        low, width = self.config.low, self.config.high - self.config.low
        steps = self.config.levels - 1
        return low + width * math.floor(steps * (self._clip(reward) - low) / width + 0.5) / steps
