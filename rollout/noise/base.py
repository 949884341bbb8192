"""What a noise model is: experiments only, to see which method survives which fault."""

from __future__ import annotations

import random
from abc import abstractmethod

from rollout.component import Component
from rollout.trajectory import Prompt, Trajectory


class RewardNoise(Component):
    """Turns a clean score into the observed one.

    Deterministic given ``rng``, a stream named by (run seed, prompt id, sample index), so that it does not matter
    which worker draws.
    """

    @property
    def shares_group_stream(self) -> bool:
        """Whether ``rng`` is to be named by (run seed, prompt id, epoch) instead, the same for a whole group."""
        return False

    @abstractmethod
    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float | None:
        """The observed score, or None if the score goes missing."""

    def delay_updates(self, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> int:
        """Weight updates by which the score arrives late; none unless a model says so. Asked after the score."""
        return 0


class CriterionNoise(RewardNoise):
    """Noise that may also be put on each criterion (each reward function's score) by itself, before they are added."""

    @property
    @abstractmethod
    def is_per_criterion(self) -> bool:
        """Whether it is."""

    @abstractmethod
    def observe_criterion(
        self, name: str, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random
    ) -> float:
        """The observed score of criterion ``name``, whose clean score is ``reward``. ``rng`` is the criterion's own."""


def require_binary(reward: float, noise: RewardNoise) -> None:
    """Refuse a score that has no opposite.

    Raises:
        ValueError: ``reward`` is neither 0 nor 1.
    """
    if reward not in (0.0, 1.0):
        raise ValueError(
            f"noise model {type(noise).__name__} is for scores of exactly 0 or 1, got {reward!r}; give the reward "
            "scores 0 and 1 and weight 1, and put this model before any that changes the score's scale"
        )
