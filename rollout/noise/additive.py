"""Noise that is added to the score."""

from __future__ import annotations

import math
import random
from abc import abstractmethod

from pydantic import Field

from rollout.noise.structure import StructuredNoise
from rollout.trajectory import Prompt, Trajectory


class _Additive(StructuredNoise):
    """r -> r + reward_std * draw."""

    class Config(StructuredNoise.Config):
        """Options every additive noise model has."""

        reward_std: float = Field(
            1.0, gt=0.0, description="Unit of the noise: the standard deviation of clean scores (.5 for fair 0/1 ones)."
        )

    config: _Additive.Config

    @abstractmethod
    def draw(self, rng: random.Random) -> float:
        """One draw, in units of ``reward_std``."""

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float:
        return reward + self.config.reward_std * self.draw(self.shared(prompt, trajectory, rng))


class Gaussian(_Additive):
    """r + sigma * reward_std * N(0, 1). Range of sigma .1 to 2; unbiased."""

    class Config(_Additive.Config):
        """Options of this noise model."""

        sigma: float = Field(ge=0.0, description="Standard deviation of the noise, in units of reward_std.")

    config: Gaussian.Config

    def draw(self, rng: random.Random) -> float:
        return self.config.sigma * rng.gauss(0.0, 1.0)


class RewardModelContinuous(_Additive):
    """A continuous reward model that orders pairs of responses rightly with probability ``pairwise_accuracy``.

    Gaussian noise of sigma = cot(pi * (a - 1/2)) on normally distributed scores of standard deviation ``reward_std``
    gives pairwise accuracy a (derived: the angle between clean and observed difference). a = .65, .718, .8, .9 give
    sigma = 1.96, 1.22, .73, .32.
    """

    class Config(_Additive.Config):
        """Options of this noise model."""

        pairwise_accuracy: float = Field(gt=0.5, le=1.0, description="Share of pairs in the right order.")

    config: RewardModelContinuous.Config

    @property
    def sigma(self) -> float:
        """Standard deviation of the noise, in units of ``reward_std``."""
        return math.tan(math.pi * (1.0 - self.config.pairwise_accuracy))

    def draw(self, rng: random.Random) -> float:
        return self.sigma * rng.gauss(0.0, 1.0)


class StudentT(_Additive):
    """r + scale * reward_std * t, Student-t with ``degrees`` degrees of freedom.

    Ranges: degrees 1.5 to 3, scale .1 to 1. The variance is infinite up to two degrees. Squared-error critics suffer
    most.
    """

    class Config(_Additive.Config):
        """Options of this noise model."""

        degrees: float = Field(1.5, gt=0.0, description="Degrees of freedom; smaller is heavier-tailed.")
        scale: float = Field(ge=0.0, description="Scale of the noise, in units of reward_std.")

    config: StudentT.Config

    def draw(self, rng: random.Random) -> float:
        degrees = self.config.degrees
        chi_squared = rng.gammavariate(degrees / 2.0, 2.0)
        return self.config.scale * rng.gauss(0.0, 1.0) / math.sqrt(chi_squared / degrees)


class Spikes(_Additive):
    """r +- size * reward_std with probability ``prob``, either sign equally likely. Ranges: prob .01 to .05, size 5 to 20."""

    class Config(_Additive.Config):
        """Options of this noise model."""

        prob: float = Field(ge=0.0, le=1.0, description="Probability of a spike.")
        size: float = Field(10.0, ge=0.0, description="Height of a spike, in units of reward_std.")

    config: Spikes.Config

    def draw(self, rng: random.Random) -> float:
        if rng.random() >= self.config.prob:
            return 0.0
        return self.config.size if rng.random() < 0.5 else -self.config.size
