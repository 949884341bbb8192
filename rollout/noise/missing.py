"""Scores that never arrive."""

from __future__ import annotations

import random

from pydantic import Field, model_validator

from rollout.noise.base import RewardNoise
from rollout.trajectory import Prompt, Trajectory


class Missing(RewardNoise):
    """No score (None, never 0) with probability p; with a threshold, p depends on the score (missing not at random).

    Studied for p from .05 to .5. A trajectory without a score is not trained on. Source: a standard model (MCAR, and
    MNAR with a threshold), no paper's own.
    """

    class Config(RewardNoise.Config):
        """Options of this noise model."""

        p: float = Field(
            ge=0.0, le=1.0, description="Probability that a score is missing (with a threshold: one up to it)."
        )
        threshold: float | None = Field(
            None, description="Scores above it, in score units, go missing with 'p_above' instead of 'p'."
        )
        p_above: float | None = Field(
            None, ge=0.0, le=1.0, description="Probability that a score above 'threshold' is missing."
        )

        @model_validator(mode="after")
        def _both_or_neither(self) -> Missing.Config:
            if (self.threshold is None) != (self.p_above is None):
                raise ValueError("'threshold' and 'p_above' belong together: give both, or neither")
            return self

    config: Missing.Config

    def rate(self, reward: float) -> float:
        """Probability that the score ``reward`` is missing."""
        config = self.config
        if config.threshold is not None and config.p_above is not None and reward > config.threshold:
            return config.p_above
        return config.p

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float | None:
        """The score, or None."""
        return None if rng.random() < self.rate(reward) else reward
