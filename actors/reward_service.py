"""The reward service: clean score, then noise. The clean score stays in the record and never meets the learner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from rollout.component import build
from rollout.config import RewardConfig
from rollout.noise import NOISES
from rollout.noise.base import RewardNoise
from rollout.noise.chain import NoiseChain
from rollout.reward_caller import Part, RewardCaller
from rollout.reward_threads import RewardThreads
from rollout.rewards.function import build_reward
from rollout.trajectory import Prompt, RewardOutcome, RewardRecord, Trajectory

log = logging.getLogger(__name__)

MAX_THREADS_GIVEN_UP = 4
"""Hung threads in one process above which it should be replaced: each may hold the interpreter for most of the time."""


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
        self._threads = RewardThreads()
        self._places = asyncio.Semaphore(config.max_concurrent_requests)
        self._callers: list[RewardCaller] = []
        for index, spec in enumerate(config.functions):
            reward = build_reward(spec, f"reward.functions.{index}")
            taken = {caller.name for caller in self._callers}
            name = spec.type if spec.type not in taken else f"{spec.type}.{index}"
            self._callers.append(RewardCaller(name, reward, config, run_seed, self._threads))
        models = [build(spec, NOISES, RewardNoise, f"reward.noise.{index}") for index, spec in enumerate(config.noise)]
        self._noise = NoiseChain(models, run_seed, samples_per_prompt)

    async def ready(self) -> None:
        """Answers once the rewards are built."""

    async def is_worn_out(self) -> bool:
        """Whether so many calls hang in threads, which cannot be ended, that this process should be replaced."""
        return self._threads.num_given_up > MAX_THREADS_GIVEN_UP

    async def close(self) -> None:
        """Let the rewards give up their connections and processes."""
        for caller in self._callers:
            await caller.reward.close()

    async def score(self, prompt: Prompt, trajectory: Trajectory) -> RewardRecord:
        """Clean and observed score of one trajectory.

        A failure of a reward is logged with the prompt id and comes back as ``RewardOutcome.ERROR`` with
        ``observed`` set to ``error_reward``, or None where the configuration says ``drop``. An abstention has no
        observed score.
        """
        record = await self.clean_score(prompt, trajectory)
        if record.outcome is RewardOutcome.ERROR and self._config.error_reward != "drop":
            return replace(record, observed=float(self._config.error_reward))
        if record.clean is None:
            return record
        weights = {caller.name: caller.reward.config.weight for caller in self._callers}
        seen = self._noise.observe(record.parts, weights, prompt, trajectory)
        outcome = RewardOutcome.MISSING if seen.observed is None else RewardOutcome.SCORED
        return replace(
            record,
            observed=seen.observed,
            corrupted=seen.corrupted,
            outcome=outcome,
            delay_updates=seen.delay_updates,
        )

    async def clean_score(self, prompt: Prompt, trajectory: Trajectory) -> RewardRecord:
        """Score without noise, for evaluation. A failure has no score at all."""
        async with self._places:
            parts = await asyncio.gather(*(caller(prompt, trajectory) for caller in self._callers))
        record = self._combined(parts, trajectory)
        if record.outcome is RewardOutcome.ERROR:
            log.warning("reward failed for prompt %s: %s", prompt.prompt_id, record.error)
        return record

    def _combined(self, parts: Sequence[Part], trajectory: Trajectory) -> RewardRecord:
        """One record of what all rewards said: a failure comes before an abstention, and that before a score."""
        scores = {
            caller.name: part.score for caller, part in zip(self._callers, parts, strict=True) if part.score is not None
        }
        clean: float | None = None
        outcome, error, kind = RewardOutcome.SCORED, "", None
        failed = next((part for part in parts if part.error_kind is not None), None)
        abstained = next((part.abstained for part in parts if part.abstained is not None), None)
        if failed is not None:
            outcome, error, kind = RewardOutcome.ERROR, failed.error, failed.error_kind
        elif abstained is not None:
            outcome, error = RewardOutcome.ABSTAINED, abstained
        else:
            clean = sum(caller.reward.config.weight * scores[caller.name] for caller in self._callers)
        return RewardRecord(
            trajectory.prompt_id,
            trajectory.sample_index,
            clean,
            clean,
            False,
            scores,
            outcome,
            error,
            kind,
            sum(part.num_retries for part in parts),
            any(part.cached for part in parts),
        )
