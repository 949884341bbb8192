"""A verifier that can be fooled."""

from __future__ import annotations

import random

from pydantic import Field, model_validator

from rollout.noise.structure import StructuredNoise
from rollout.trajectory import Prompt, Trajectory


class SystematicFalsePositive(StructuredNoise):
    """The score becomes ``high`` with probability ``prob`` if the response shows the trigger; otherwise it stays.

    The trigger is a phrase in the response, or more than ``longer_than_tokens`` sampled tokens, or either. Ranges:
    prob .3 to 1 with a trigger that .01 to .05 of the first responses show. Learns to be exploited: expect a plateau or
    collapse even at a low share of false positives.
    """

    class Config(StructuredNoise.Config):
        """Options of this noise model."""

        prob: float = Field(ge=0.0, le=1.0, description="Probability that the trigger works.")
        phrase: str | None = Field(None, min_length=1, description="Text in the response that triggers.")
        longer_than_tokens: int | None = Field(None, ge=0, description="Response length above which it triggers.")
        high: float = Field(1.0, description="The score that the trigger earns, if it is above the clean one.")

        @model_validator(mode="after")
        def _some_trigger(self) -> SystematicFalsePositive.Config:
            if self.phrase is None and self.longer_than_tokens is None:
                raise ValueError("give a trigger: phrase, longer_than_tokens, or both")
            return self

    config: SystematicFalsePositive.Config

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float:
        fooled = self.triggered(trajectory) and self.shared(prompt, trajectory, rng).random() < self.config.prob
        return max(reward, self.config.high) if fooled else reward

    def triggered(self, trajectory: Trajectory) -> bool:
        """Whether the response shows the trigger."""
        phrase, longest = self.config.phrase, self.config.longer_than_tokens
        says = phrase is not None and phrase in trajectory.response_text
        return says or (longest is not None and trajectory.num_response_tokens > longest)
