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

    @abstractmethod
    def __call__(self, reward: float, prompt: Prompt, trajectory: Trajectory, rng: random.Random) -> float | None:
        """The observed score, or None if the score goes missing."""
