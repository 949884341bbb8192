"""Additive noise, light- and heavy-tailed.

Sizes are in score units. Papers give them in units of the standard deviation of the clean scores: multiply by it (.5
for a score in {0, 1} that is right half of the time).
"""

from __future__ import annotations

import math
import random

from pydantic import Field

from rollout.noise.base import RewardNoise
from rollout.trajectory import Prompt, Trajectory


def sigma_for_pairwise_accuracy(accuracy: float) -> float:
    """Size of Gaussian noise with which a reward model orders two responses right with probability ``accuracy``.

    sigma = cot(pi * (accuracy - 1/2)), in units of the standard deviation of the clean scores, which are taken to be
    normal: of a pair's differences, N(0, 2) clean and N(0, 2 (1 + sigma^2)) observed, the signs agree with
    probability 1/2 + atan(1/sigma)/pi. Examples: .65: 1.96; .718: 1.22; .8: .73; .9: .32.

    Raises:
        ValueError: ``accuracy`` is not above 1/2 and at most 1.
    """
    if not 0.5 < accuracy <= 1.0:
        raise ValueError(f"pairwise accuracy must be above 0.5 (a coin) and at most 1, got {accuracy!r}")
    if accuracy == 1.0:
        return 0.0
    return 1.0 / math.tan(math.pi * (accuracy - 0.5))


class Gaussian(RewardNoise):
    """r + sigma * N(0, 1): unbiased, light-tailed.

    Studied for sigma from .1 to 2 standard deviations of the clean scores. Source: a standard model, no paper's own.
    """

    class Config(RewardNoise.Config):
        """Options of this noise model."""

        sigma: float = Field(ge=0.0, description="Standard deviation of the noise, in score units.")

    config: Gaussian.Config

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float:
        """The score plus one normal draw."""
        return reward + self.config.sigma * rng.gauss(0.0, 1.0)


class RewardModelContinuous(RewardNoise):
    """r + sigma * clean_std * N(0, 1) + drift * version: a reward model of a given pairwise accuracy, that may drift.

    sigma is :func:`sigma_for_pairwise_accuracy`. The drift is an offset that grows with the newest weight version that
    sampled the response, the same for all responses of one version: it moves scores between updates, not within a
    batch. Studied for accuracies from .65 to .9. Source: a standard model (probit, equal variances), no paper's own.
    """

    class Config(RewardNoise.Config):
        """Options of this noise model."""

        accuracy: float = Field(
            gt=0.5, le=1.0, description="Probability that two responses are ordered right, for normal clean scores."
        )
        clean_std: float = Field(
            1.0, gt=0.0, description="Standard deviation of the clean scores, in score units; 0.5 for 0/1 evenly."
        )
        drift: float = Field(0.0, description="Offset added for each weight version, in score units.")

    config: RewardModelContinuous.Config

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float:
        """The score plus one normal draw and the offset of the response's version."""
        sigma = sigma_for_pairwise_accuracy(self.config.accuracy) * self.config.clean_std
        return reward + sigma * rng.gauss(0.0, 1.0) + self.config.drift * trajectory.policy_version_max


class StudentT(RewardNoise):
    """r + scale * t with t from Student's distribution: P(|t| > x) falls as x^-nu.

    t = N(0, 1) / sqrt(chi2(nu) / nu); its moments of order nu and above do not exist. Studied for nu from 1.5 to 3 and
    scales from .1 to 1 standard deviations of the clean scores; critics with squared errors suffer most. Source: a
    standard model, no paper's own.
    """

    class Config(RewardNoise.Config):
        """Options of this noise model."""

        nu: float = Field(
            ge=1.0, le=1000.0, description="Degrees of freedom; 1 is Cauchy, 2 and below have no finite variance."
        )
        scale: float = Field(ge=0.0, description="Factor on the t draw, in score units.")

    config: StudentT.Config

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float:
        """The score plus one scaled t draw."""
        # chi2(nu) is Gamma(nu / 2, 2), which also takes a fractional nu.
        chi_squared = rng.gammavariate(self.config.nu / 2.0, 2.0)
        return reward + self.config.scale * rng.gauss(0.0, 1.0) / math.sqrt(chi_squared / self.config.nu)


class Spikes(RewardNoise):
    """With a small probability, r + size or r - size, each sign as often as the other.

    Studied for probabilities from .01 to .05 and sizes from 5 to 20 standard deviations of the clean scores. Source: a
    standard contamination model, no paper's own.
    """

    class Config(RewardNoise.Config):
        """Options of this noise model."""

        probability: float = Field(ge=0.0, le=1.0, description="Probability of a spike.")
        size: float = Field(ge=0.0, description="Size of a spike, in score units.")

    config: Spikes.Config

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float:
        """The score, with or without a spike."""
        if rng.random() >= self.config.probability:
            return reward
        return reward + (self.config.size if rng.random() < 0.5 else -self.config.size)
