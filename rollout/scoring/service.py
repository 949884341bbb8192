"""The reward service: clean score, then noise. The clean score stays in the record and never meets the learner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace

from rollout.component import build
from rollout.config import PseudoLabelConfig, RewardConfig
from rollout.noise import NOISES
from rollout.noise.base import RewardNoise
from rollout.noise.chain import NoiseChain
from rollout.rewards.answers.thinking import spoken
from rollout.rewards.exact_match import find_answer
from rollout.rewards.model import Scorer
from rollout.scoring.answer_key import AnswerKey, question_key
from rollout.scoring.panel import RewardPanel
from rollout.scoring.recheck import is_labelled, is_rechecked
from rollout.scoring.record import RewardOutcome, RewardRecord
from rollout.scoring.threads import RewardThreads
from rollout.trajectory import Prompt, Trajectory

log = logging.getLogger(__name__)

MAX_THREADS_GIVEN_UP = 4
"""Hung threads in one process above which it should be replaced: each may hold the interpreter for most of the time."""


class RewardService:
    """Scores trajectories. An asyncio actor; a reward that raises, hangs or lies becomes an outcome, never a zero.

    Args:
        config: rewards, gold rewards and noise models.
        run_seed: first part of the name of every noise stream.
        samples_per_prompt: size of a group, needed by noise whose draws a whole group shares.
        scorers: what answers for each reward model, by its place such as ``reward.functions.0``.

    Raises:
        ValueError: a noise model shares draws within a group and ``samples_per_prompt`` is not given.
    """

    def __init__(
        self,
        config: RewardConfig,
        run_seed: int,
        samples_per_prompt: int | None = None,
        scorers: Mapping[str, Scorer] | None = None,
    ) -> None:
        self._config, self._run_seed = config, run_seed
        self._random_part = 1.0 - config.disputed_share(samples_per_prompt)
        self._threads = RewardThreads()
        self._places = asyncio.Semaphore(config.max_concurrent_requests)
        self._scorers = dict(scorers or {})
        shared = (config, run_seed, self._threads, self._scorers)
        self._functions = RewardPanel(config.functions, "reward.functions", *shared)
        self._gold = RewardPanel(config.gold, "reward.gold", *shared) if config.gold else None
        self._answer_key = AnswerKey(config.answer_key, self._functions)
        models = [build(spec, NOISES, RewardNoise, f"reward.noise.{index}") for index, spec in enumerate(config.noise)]
        self._noise = NoiseChain(models, run_seed, samples_per_prompt)

    async def ready(self) -> None:
        """Answers once the rewards are built and the reward models loaded."""
        await asyncio.gather(*(scorer.ready() for scorer in self._scorers.values()))

    async def is_worn_out(self) -> bool:
        """Whether so many calls hang in threads, which cannot be ended, that this process should be replaced."""
        return self._threads.num_given_up > MAX_THREADS_GIVEN_UP

    async def close(self) -> None:
        """Let the rewards give up their connections and processes."""
        for panel in (self._functions, self._gold):
            if panel is not None:
                await panel.close()

    async def score(self, prompt: Prompt, trajectory: Trajectory) -> RewardRecord:
        """Clean and observed score of one trajectory, its answer's key, and the true score where training may see it.

        A failure of a reward is logged with the prompt id and comes back as ``RewardOutcome.ERROR`` with
        ``observed`` set to ``error_reward``, or None where the configuration says ``drop``. An abstention has no
        observed score. A failure of gold costs the clean score only. With ``pseudo_labels`` the record has the answer,
        and the votes of its group score it elsewhere.
        """
        # One place for the trajectory, not one a call: gold must not wait behind the functions of others.
        async with self._places:
            if self._config.pseudo_labels is not None:
                record = await self._with_answer(self._config.pseudo_labels, prompt, trajectory)
            else:
                record = await self._with_score(prompt, trajectory)
        return replace(
            record,
            question_key=question_key(prompt, trajectory),
            answer_key=self._answer_key(prompt, trajectory),
            gold_label=record.clean if self._is_labelled(prompt, trajectory) else None,
        )

    async def _with_score(self, prompt: Prompt, trajectory: Trajectory) -> RewardRecord:
        """What the functions say, noise on it, and what gold says where it is asked."""
        if self._gold is None:
            return self._observed(await self._functions(prompt, trajectory), prompt, trajectory)
        if not (self._is_rechecked(prompt, trajectory) or self._is_labelled(prompt, trajectory)):
            record = await self._functions(prompt, trajectory)
            return replace(self._observed(record, prompt, trajectory), clean=None)
        record, gold = await asyncio.gather(self._functions(prompt, trajectory), self._gold(prompt, trajectory))
        # Without gold training goes on, so this is a warning and no error.
        if gold.clean is None:
            log.warning("gold reward gave no score for prompt %s: %s", prompt.prompt_id, gold.error)
        observed = self._observed(record, prompt, trajectory)
        return replace(observed, clean=gold.clean, gold_error="" if gold.clean is not None else gold.error)

    async def _with_answer(self, votes: PseudoLabelConfig, prompt: Prompt, trajectory: Trajectory) -> RewardRecord:
        """The answer that is to vote; and the clean score, which is for reports, where something can tell it."""
        said = spoken(trajectory.response_text, votes.thinking)
        record = RewardRecord.pending(trajectory, None if said is None else find_answer(said, votes.answer_pattern))
        judge = None
        if self._gold is not None:
            asked = self._is_rechecked(prompt, trajectory) or self._is_labelled(prompt, trajectory)
            judge = self._gold if asked else None
        elif prompt.reference is not None:
            judge = self._functions
        if judge is None:
            return record
        judged = await judge(prompt, trajectory)
        return replace(record, clean=judged.clean, parts=judged.parts, gold_error=judged.error)

    def _is_rechecked(self, prompt: Prompt, trajectory: Trajectory) -> bool:
        share = self._config.gold_share
        return is_rechecked(self._run_seed, prompt.prompt_id, trajectory.sample_index, share)

    def _is_labelled(self, prompt: Prompt, trajectory: Trajectory) -> bool:
        """Whether training may see the true score, by chance; see also ``gold_labels.choice``."""
        labels = self._config.gold_labels
        if labels is None:
            return False
        share = self._random_part * labels.share_at(trajectory.policy_version_min)
        return is_labelled(self._run_seed, prompt.prompt_id, trajectory.sample_index, share)

    async def clean_score(self, prompt: Prompt, trajectory: Trajectory) -> RewardRecord:
        """Score without noise (of gold where there is such) and the answer's key, for evaluation."""
        async with self._places:
            record = await (self._gold or self._functions)(prompt, trajectory)
        if record.outcome is RewardOutcome.ERROR:
            log.warning("reward failed for prompt %s: %s", prompt.prompt_id, record.error)
        return replace(record, answer_key=self._answer_key(prompt, trajectory))

    def _observed(self, record: RewardRecord, prompt: Prompt, trajectory: Trajectory) -> RewardRecord:
        """What training sees of the functions' record: noise, and what the configuration says about failures."""
        if record.outcome is RewardOutcome.ERROR:
            log.warning("reward failed for prompt %s: %s", prompt.prompt_id, record.error)
            lost = self._config.error_reward == "drop"
            return record if lost else replace(record, observed=float(self._config.error_reward))
        if record.observed is None:
            return record
        # Noise is put on what the functions said, never on gold: it is their mistakes that are imitated.
        seen = self._noise.observe(record.parts, self._functions.weights, prompt, trajectory)
        outcome = RewardOutcome.MISSING if seen.observed is None else RewardOutcome.SCORED
        return replace(
            record,
            observed=seen.observed,
            corrupted=seen.corrupted,
            outcome=outcome,
            delay_updates=seen.delay_updates,
        )
