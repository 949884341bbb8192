"""Scores that never arrive."""

from __future__ import annotations

import random
from typing import Literal

from pydantic import Field

from rollout.noise.structure import StructuredNoise
from rollout.trajectory import Prompt, Trajectory


class Missing(StructuredNoise):
    """The score goes missing with probability ``prob``: for all, or only at or above, or only below a threshold.

    Range .05 to .5. A missing score is None, never a silent zero: its trajectory is left out of the update.
    """

    class Config(StructuredNoise.Config):
        """Options of this noise model."""

        prob: float = Field(ge=0.0, le=1.0, description="Probability that a score goes missing.")
        applies_to: Literal["all", "high", "low"] = Field(
            "all", description="'all': missing completely at random; 'high'/'low': only scores at or above/below threshold."
        )
        threshold: float = Field(0.5, description="What separates high from low scores.")

    config: Missing.Config

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float | None:
        side = "high" if reward >= self.config.threshold else "low"
        if self.config.applies_to not in ("all", side):
            return reward
        return None if self.shared(prompt, trajectory, rng).random() < self.config.prob else reward
