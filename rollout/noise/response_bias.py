"""Faults that the policy can learn to exploit: the score depends on how the response looks."""

from __future__ import annotations

import random

from pydantic import Field

from rollout.noise.base import RewardNoise, require_binary
from rollout.noise.triggers import Trigger, WrongAnswerTrigger
from rollout.trajectory import Prompt, Trajectory


class SystematicFalsePositive(RewardNoise):
    """A binary score becomes 1 with probability q wherever the response shows a trigger.

    The patterns are those of arXiv 2605.02909, where it is they and not the rate of the errors that decide between a
    delay, a plateau and a collapse: a phrase, a length, a format, and an answer that is nearly right. Studied for q
    from .3 to 1 and triggers that .01 to .05 of the first responses show. Forms and numbers are our choice.
    """

    class Config(WrongAnswerTrigger):
        """Options of this noise model; exactly one trigger is given."""

        probability: float = Field(
            1.0, ge=0.0, le=1.0, description="Probability q that a response with the trigger is scored 1."
        )

    config: SystematicFalsePositive.Config

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float:
        """1, or the clean score.

        Raises:
            ValueError: ``reward`` is neither 0 nor 1.
        """
        require_binary(reward, self)
        hit = self.config.shown(prompt, trajectory) and rng.random() < self.config.probability
        return 1.0 if hit else reward


class SystematicFalseNegative(RewardNoise):
    """A binary score becomes 0 with probability q wherever the response shows a trigger: a right answer is lost.

    A verifier that does not understand a format, say. It teaches the policy to avoid the trigger, which costs no
    accuracy where there are other ways to say it. The mirror image of :class:`SystematicFalsePositive` (our choice).
    """

    class Config(Trigger):
        """Options of this noise model; exactly one trigger is given."""

        probability: float = Field(
            1.0, ge=0.0, le=1.0, description="Probability q that a response with the trigger is scored 0."
        )

    config: SystematicFalseNegative.Config

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float:
        """0, or the clean score.

        Raises:
            ValueError: ``reward`` is neither 0 nor 1.
        """
        require_binary(reward, self)
        hit = self.config.shown(prompt, trajectory) and rng.random() < self.config.probability
        return 0.0 if hit else reward


class LengthBias(RewardNoise):
    """A judge that loves length: r + b * (length - mean) / std, with length in sampled tokens.

    ``mean`` and ``std`` are fixed, so that one worker needs nothing from the others; take them from the first
    policy's responses. Studied for b from .1 to 1 in units of the standard deviation of the clean scores. Source: the
    length-biased reward of VRPO, arXiv 2508.03058; the form is our choice.
    """

    class Config(RewardNoise.Config):
        """Options of this noise model."""

        b: float = Field(
            ge=-100.0, le=100.0, description="Added score for each standard deviation of length above the mean."
        )
        mean: float = Field(ge=0.0, description="Length that is scored without bias, in sampled tokens.")
        std: float = Field(gt=0.0, description="Standard deviation of the length, in sampled tokens.")

    config: LengthBias.Config

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float:
        """The score plus the bias; nothing is drawn."""
        return reward + self.config.b * (trajectory.num_response_tokens - self.config.mean) / self.config.std
