"""Faults that the policy can learn to exploit: the score depends on how the response looks."""

from __future__ import annotations

import random

from pydantic import Field, model_validator

from rollout.noise.base import RewardNoise, require_binary
from rollout.trajectory import Prompt, Trajectory


class SystematicFalsePositive(RewardNoise):
    """A binary score becomes 1 with probability q wherever the response shows a trigger: a phrase, or its length.

    Studied for q from .3 to 1 and triggers that .01 to .05 of the first responses show. Leads to a plateau or to
    collapse even where few scores are wrong. Source: a standard model, no paper's own.
    """

    class Config(RewardNoise.Config):
        """Options of this noise model; exactly one trigger is given."""

        probability: float = Field(
            1.0, ge=0.0, le=1.0, description="Probability q that a response with the trigger is scored 1."
        )
        phrase: str | None = Field(
            None, min_length=1, description="The trigger is this text, anywhere in the response, letter by letter."
        )
        longer_than_tokens: int | None = Field(
            None, ge=0, description="The trigger is a response of more than this many sampled tokens."
        )

        @model_validator(mode="after")
        def _one_trigger(self) -> SystematicFalsePositive.Config:
            if (self.phrase is None) == (self.longer_than_tokens is None):
                raise ValueError("give exactly one trigger: 'phrase' or 'longer_than_tokens'")
            return self

    config: SystematicFalsePositive.Config

    def triggered(self, trajectory: Trajectory) -> bool:
        """Whether the response shows the trigger."""
        if self.config.phrase is not None:
            return self.config.phrase in trajectory.response_text
        assert self.config.longer_than_tokens is not None  # validated: there is exactly one trigger
        return trajectory.num_response_tokens > self.config.longer_than_tokens

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float:
        """1, or the clean score.

        Raises:
            ValueError: ``reward`` is neither 0 nor 1.
        """
        require_binary(reward, self)
        return 1.0 if self.triggered(trajectory) and rng.random() < self.config.probability else reward


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
