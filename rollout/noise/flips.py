"""Verifiers that take right for wrong."""

from __future__ import annotations

import random

from pydantic import Field, model_validator

from rollout.noise.structure import StructuredNoise
from rollout.trajectory import Prompt, Trajectory


class _Flip(StructuredNoise):
    """Mirrors a score between ``low`` and ``high``: r -> low + high - r."""

    class Config(StructuredNoise.Config):
        """Options every flip has."""

        low: float = Field(0.0, description="Score of a wrong response.")
        high: float = Field(1.0, description="Score of a right response.")

        @model_validator(mode="after")
        def _ordered(self) -> _Flip.Config:
            if self.low >= self.high:
                raise ValueError(f"low {self.low} must be below high {self.high}")
            return self

    config: _Flip.Config

    def _mirror(
        self, reward: float, prob: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random
    ) -> float:
        if not self.config.low <= reward <= self.config.high:
            raise ValueError(f"score {reward} is outside [{self.config.low}, {self.config.high}]: nothing to flip it to")
        flipped = self.shared(prompt, trajectory, rng).random() < prob
        return self.config.low + self.config.high - reward if flipped else reward


class SymmetricFlip(_Flip):
    """r -> low + high - r with probability ``prob``, whatever r is.

    Range .05 to .40; .5 leaves no signal. Up to .15 nearly harmless, .3 graceful, .4 severe (arXiv 2604.07666,
    2505.22653).
    """

    class Config(_Flip.Config):
        """Options of this noise model."""

        prob: float = Field(ge=0.0, le=1.0, description="Probability of a flip.")

    config: SymmetricFlip.Config

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float:
        return self._mirror(reward, self.config.prob, prompt, trajectory, rng)


class AsymmetricFlip(_Flip):
    """A false-positive rate for scores below the middle of [low, high], a false-negative rate for the others.

    Ranges: false positives .05 to .4, false negatives .05 to .5, their sum below .9; their sum is 1 where no signal is
    left.
    """

    class Config(_Flip.Config):
        """Options of this noise model."""

        false_positive_rate: float = Field(ge=0.0, le=1.0, description="P(seen as right | wrong).")
        false_negative_rate: float = Field(ge=0.0, le=1.0, description="P(seen as wrong | right).")

    config: AsymmetricFlip.Config

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float:
        right = reward >= (self.config.low + self.config.high) / 2
        prob = self.config.false_negative_rate if right else self.config.false_positive_rate
        return self._mirror(reward, prob, prompt, trajectory, rng)


class RewardModelBinary(_Flip):
    """A binary reward model of accuracy a: flips with probability 1 - a on both sides.

    Range .60 to .90; DVPO's dialogue experiments report .718 (arXiv 2512.03847), which leaves 2a - 1 = .436 of the
    signal.
    """

    class Config(_Flip.Config):
        """Options of this noise model."""

        accuracy: float = Field(0.718, ge=0.0, le=1.0, description="Share of scores that are right.")

    config: RewardModelBinary.Config

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float:
        return self._mirror(reward, 1.0 - self.config.accuracy, prompt, trajectory, rng)
