"""The reward service: clean score, then noise. The clean score stays in the record and never meets the learner."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from dataclasses import replace

from rollout.component import build
from rollout.config import RewardConfig
from rollout.noise import NOISES
from rollout.noise.base import RewardNoise
from rollout.rewards import REWARDS
from rollout.rewards.base import Reward
from rollout.seeding import stream
from rollout.trajectory import Prompt, RewardOutcome, RewardRecord, Trajectory

log = logging.getLogger(__name__)


class RewardService:
    """Scores trajectories. An asyncio actor; a reward that raises, hangs or lies becomes an outcome, never a zero.

    Args:
        config: rewards and noise models.
        run_seed: first part of the name of every noise stream.
        samples_per_prompt: size of a group, needed by noise whose draws a whole group shares.

    Raises:
        ValueError: a noise model shares draws within a group and ``samples_per_prompt`` is not given.
    """

    def __init__(self, config: RewardConfig, run_seed: int, samples_per_prompt: int | None = None) -> None:
        self._config = config
        self._run_seed = run_seed
        self._samples_per_prompt = samples_per_prompt
        self._rewards: list[tuple[str, Reward]] = []
        for index, spec in enumerate(config.functions):
            reward = build(spec, REWARDS, Reward, f"reward.functions.{index}")
            taken = {name for name, _ in self._rewards}
            self._rewards.append((spec.type if spec.type not in taken else f"{spec.type}.{index}", reward))
        self._noise: list[RewardNoise] = [
            build(spec, NOISES, RewardNoise, f"reward.noise.{index}") for index, spec in enumerate(config.noise)
        ]
        if samples_per_prompt is None and any(noise.shares_group_stream for noise in self._noise):
            raise ValueError("noise with 'unit: group' needs samples_per_prompt, to know which samples are one group")

    async def score(self, prompt: Prompt, trajectory: Trajectory) -> RewardRecord:
        """Clean and observed score of one trajectory.

        A failure of the reward is logged with the prompt id and comes back as ``RewardOutcome.ERROR`` with
        ``observed`` set to ``error_reward``, or None where the configuration says ``drop``.
        """
        record = await self.clean_score(prompt, trajectory)
        if record.clean is None:
            drops = self._config.error_reward == "drop"
            return replace(record, observed=None if drops else float(self._config.error_reward))
        observed = self._with_noise(record.clean, prompt, trajectory)
        outcome = RewardOutcome.MISSING if observed is None else RewardOutcome.SCORED
        return replace(record, observed=observed, corrupted=observed != record.clean, outcome=outcome)

    async def clean_score(self, prompt: Prompt, trajectory: Trajectory) -> RewardRecord:
        """Score without noise, for evaluation. A failure has no score at all."""
        ids = (trajectory.prompt_id, trajectory.sample_index)
        try:
            parts = await asyncio.wait_for(self._clean_parts(prompt, trajectory), self._config.timeout_s)
        except Exception as error:  # the reward is the user's code and sees untrusted model text
            message = _one_line(error, self._config.timeout_s)
            log.warning("reward failed for prompt %s: %s", prompt.prompt_id, message)
            return RewardRecord(*ids, None, None, False, {}, RewardOutcome.ERROR, message)
        clean = sum(reward.config.weight * parts[name] for name, reward in self._rewards)
        return RewardRecord(*ids, clean, clean, False, parts, RewardOutcome.SCORED)

    async def _clean_parts(self, prompt: Prompt, trajectory: Trajectory) -> dict[str, float]:
        parts = {}
        for name, reward in self._rewards:
            value = await reward(prompt, trajectory)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"reward {name!r} returned {value!r}, which is not a finite number")
            parts[name] = float(value)
        return parts

    def _with_noise(self, clean: float, prompt: Prompt, trajectory: Trajectory) -> float | None:
        observed: float | None = clean
        for index, noise in enumerate(self._noise):
            if observed is None:
                break
            observed = noise(observed, prompt, trajectory, self._noise_stream(index, prompt, trajectory))
        return observed

    def _noise_stream(self, index: int, prompt: Prompt, trajectory: Trajectory) -> random.Random:
        if not self._noise[index].shares_group_stream:
            return stream(self._run_seed, prompt.prompt_id, trajectory.sample_index, f"noise.{index}")
        assert self._samples_per_prompt is not None  # checked on construction
        epoch = trajectory.sample_index // self._samples_per_prompt
        return stream(self._run_seed, prompt.prompt_id, epoch, f"noise.{index}.group")


def _one_line(error: Exception, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no score within {timeout_s:g} s"
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
