"""Flips of a binary score: r -> 1 - r with a probability that may depend on r."""

from __future__ import annotations

import random
from abc import abstractmethod
from typing import Literal

from pydantic import Field

from rollout.noise.base import CriterionNoise, RewardNoise, require_binary
from rollout.noise.votes import final_answer
from rollout.seeding import stream
from rollout.trajectory import Prompt, Trajectory


class FlipConfig(RewardNoise.Config):
    """Options that all flips share: who shares a draw, and for how long."""

    unit: Literal["rollout", "group", "criterion"] = Field(
        "rollout",
        description="Who shares one draw: nobody ('rollout') or all samples of one prompt in one epoch ('group'). "
        "'criterion': each reward function's score is flipped by itself, before they are added.",
    )
    memory: Literal["resampled", "persistent", "answer"] = Field(
        "resampled",
        description="'resampled': a new draw each time; 'persistent': one permanent draw for each prompt id, which "
        "all its samples share whatever the unit; 'answer': one permanent draw for each prompt id and final answer, so "
        "that the policy can find the wrong answers that pass.",
    )
    seed: int = Field(
        0,
        description="Seed of persistent draws; the run's seed does not enter, so the same prompts are hit in every "
        "run. Give persistent models of one type different seeds.",
    )


class Flip(CriterionNoise):
    """Base of the flips: one uniform draw u on [0, 1), and r -> 1 - r where u < :meth:`rate` of r."""

    config: FlipConfig

    @property
    def shares_group_stream(self) -> bool:
        """True for ``unit: group`` where draws are made anew."""
        return self.config.unit == "group" and self.config.memory == "resampled"

    @property
    def is_per_criterion(self) -> bool:
        """True for ``unit: criterion``."""
        return self.config.unit == "criterion"

    @abstractmethod
    def rate(self, reward: float) -> float:
        """Probability of a flip of the clean score ``reward``, 0 or 1."""

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float:
        """The score, flipped or not.

        Raises:
            ValueError: ``reward`` is neither 0 nor 1.
        """
        return self.observe_criterion("", reward, prompt, trajectory, rng)

    def observe_criterion(
        self, name: str, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random
    ) -> float:
        """The score of one criterion, flipped or not; the name "" stands for the whole score.

        Raises:
            ValueError: ``reward`` is neither 0 nor 1.
        """
        require_binary(reward, self)
        purpose = f"noise.{self.config.memory}.{type(self).__name__}" + (f".{name}" if name else "")
        # What is remembered must not depend on the sample, so it does not draw from the sample's own stream.
        if self.config.memory == "persistent":
            rng = stream(self.config.seed, prompt.prompt_id, 0, purpose)
        elif self.config.memory == "answer":
            answer = final_answer(trajectory.response_text)
            rng = stream(self.config.seed, prompt.prompt_id, 0, f"{purpose}\x1f{answer}")
        return 1.0 - reward if rng.random() < self.rate(reward) else reward


class SymmetricFlip(Flip):
    """r -> 1 - r with probability p, whatever r is.

    Studied for p from .05 to .40: up to .15 nearly harmless, .3 graceful, .4 and more severe; at .5 no signal is left.
    Source: arXiv 2604.07666, 2505.22653.
    """

    class Config(FlipConfig):
        """Options of this noise model."""

        p: float = Field(ge=0.0, le=1.0, description="Probability that a score is flipped.")

    config: SymmetricFlip.Config

    def rate(self, reward: float) -> float:
        """p."""
        return self.config.p


class AsymmetricFlip(Flip):
    """0 -> 1 at the false positive rate, 1 -> 0 at the false negative rate.

    Studied for false positives from .05 to .4 and false negatives from .05 to .5, with a sum below .9; the signal that
    is left is J = 1 - sum. Source: the rates of arXiv 2510.18924 and 2510.00915; J: arXiv 2601.04411.
    """

    class Config(FlipConfig):
        """Options of this noise model."""

        false_positive_rate: float = Field(ge=0.0, le=1.0, description="Probability that a clean 0 is observed as 1.")
        false_negative_rate: float = Field(ge=0.0, le=1.0, description="Probability that a clean 1 is observed as 0.")

    config: AsymmetricFlip.Config

    def rate(self, reward: float) -> float:
        """The false negative rate for 1, the false positive rate for 0."""
        return self.config.false_negative_rate if reward == 1.0 else self.config.false_positive_rate


class RewardModelBinary(Flip):
    """A reward model that judges right with probability ``accuracy``: r -> 1 - r with probability 1 - accuracy.

    Studied for accuracies from .60 to .90; J = 2 * accuracy - 1. The dialogue experiments of DVPO (arXiv 2512.03847)
    had .718.
    """

    class Config(FlipConfig):
        """Options of this noise model."""

        accuracy: float = Field(ge=0.0, le=1.0, description="Probability that a score is observed as it is.")

    config: RewardModelBinary.Config

    def rate(self, reward: float) -> float:
        """1 - accuracy."""
        return 1.0 - self.config.accuracy
