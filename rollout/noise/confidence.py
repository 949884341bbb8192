"""Errors that follow the policy's own confidence, as those of a judge of the same family do."""

from __future__ import annotations

import math
import random

from pydantic import Field

from rollout.noise.base import RewardNoise, require_binary
from rollout.trajectory import Prompt, Trajectory


class ConfidenceFlip(RewardNoise):
    """A judge that believes what the policy finds likely: confident mistakes pass, hesitant right answers fail.

    With x the mean log-probability of the response's sampled tokens, in nats, and s = sigmoid((x - centre) / width):
    0 -> 1 with probability false_positive_rate * s, and 1 -> 0 with probability false_negative_rate * (1 - s). As the
    policy sharpens, false positives grow to their full rate by themselves. Source: a model of policy-correlated noise,
    no paper's own.
    """

    class Config(RewardNoise.Config):
        """Options of this noise model."""

        false_positive_rate: float = Field(
            ge=0.0, le=1.0, description="Probability that a wrong answer passes where the policy is wholly confident."
        )
        false_negative_rate: float = Field(
            ge=0.0, le=1.0, description="Probability that a right answer fails where the policy is not confident."
        )
        centre: float = Field(
            -0.5, le=0.0, description="Mean log-probability at which half of the rates apply, in nats a token."
        )
        width: float = Field(0.25, gt=0.0, description="Scale of the transition, in nats a token.")

    config: ConfidenceFlip.Config

    def confidence(self, trajectory: Trajectory) -> float:
        """s, in [0, 1]; the policy's confidence in the response. A response without sampled tokens has none: 0."""
        number = trajectory.num_response_tokens
        if number == 0:
            return 0.0
        mean = sum(trajectory.rollout_logprobs) / number  # 0 where a token was not sampled
        # The logistic function by tanh, which does not overflow for long unlikely responses.
        return 0.5 * (1.0 + math.tanh(0.5 * (mean - self.config.centre) / self.config.width))

    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float:
        """The score, flipped or not.

        Raises:
            ValueError: ``reward`` is neither 0 nor 1.
        """
        require_binary(reward, self)
        confidence = self.confidence(trajectory)
        config = self.config
        rate = config.false_negative_rate * (1.0 - confidence) if reward else config.false_positive_rate * confidence
        return 1.0 - reward if rng.random() < rate else reward
