"""Scores without noise on held-out prompts: of greedy answers, and of samples where wanted, by the running engines."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from actors.faults import Quarantined
from actors.pools.reward_pool import RewardPool
from actors.pools.rollout_pool import RolloutPool
from rollout.audit.intervals import Estimate, share_interval
from rollout.config import SamplingConfig
from rollout.sampling.evaluation import EvaluationConfig, EvaluationSampling, SampledEvaluation
from rollout.scoring.record import RewardRecord
from rollout.scoring.repeated import best_of, majority_of, mean_interval
from rollout.trajectory import Prompt, SampleRequest, Trajectory

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer and its clean score."""

    prompt: Prompt
    trajectory: Trajectory
    reward: RewardRecord


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """What is asked of each held-out prompt besides a greedy answer.

    Attributes:
        options: what is measured.
        training: how training responses are sampled, which holds where the options say nothing else.
    """

    options: EvaluationConfig = field(default_factory=EvaluationConfig)
    training: SamplingConfig = field(default_factory=SamplingConfig)


@dataclass(frozen=True, slots=True)
class SplitAnswers:
    """Answers to the prompts of one split.

    Attributes:
        greedy: one for each prompt.
        sampled: by the label of a setting, all samples of the first prompt, then of the second, and so on.
    """

    greedy: list[Answer]
    sampled: dict[str, list[Answer]] = field(default_factory=dict)

    @property
    def all(self) -> list[Answer]:
        """Every answer."""
        return [*self.greedy, *(answer for answers in self.sampled.values() for answer in answers)]

    def metrics(self, options: EvaluationConfig) -> dict[str, float]:
        """:func:`split_metrics`, and :func:`sampled_metrics` of each setting as ``sampled/LABEL/NAME``."""
        found = split_metrics(self.greedy, options.category)
        for setting in options.sampled:
            means = sampled_metrics(setting, self.sampled[setting.label])
            found |= {f"sampled/{setting.label}/{name}": value for name, value in means.items()}
        return found


async def answer_splits(
    pool: RolloutPool, rewards: RewardPool, prompts: Mapping[str, Sequence[Prompt]], plan: EvaluationPlan
) -> dict[str, SplitAnswers]:
    """Answers to the prompts of all splits, all asked for at the same time."""
    settings: dict[str, tuple[int, EvaluationSampling | None]] = {"": (1, None)}  # the greedy one
    for setting in plan.options.sampled:
        settings[setting.label] = setting.samples, setting.sampling(plan.training)

    async def at(members: Sequence[Prompt], number: int, sampling: EvaluationSampling | None) -> list[Answer]:
        requests = [SampleRequest(prompt, index) for prompt in members for index in range(number)]
        return list(await asyncio.gather(*(_answer(pool, rewards, request, sampling) for request in requests)))

    asked = [(split, label) for split in prompts for label in settings]
    answers = await asyncio.gather(*(at(prompts[split], *settings[label]) for split, label in asked))
    found = dict(zip(asked, answers, strict=True))
    return {
        split: SplitAnswers(found[split, ""], {label: found[split, label] for label in settings if label})
        for split in prompts
    }


async def _answer(
    pool: RolloutPool, rewards: RewardPool, request: SampleRequest, sampling: EvaluationSampling | None
) -> Answer:
    try:
        asked = pool.respond_greedily(request) if sampling is None else pool.respond(request, sampling)
        trajectory = await asked
    except Quarantined as reason:
        return _unanswered(request, str(reason))
    if trajectory.failure:
        return _unanswered(request, f"environment: {trajectory.failure}")
    return Answer(request.prompt, trajectory, await rewards.clean_score(request.prompt, trajectory))


def _unanswered(request: SampleRequest, reason: str) -> Answer:
    """What stands for the answer to a prompt that has none: no token and no score."""
    return Answer(request.prompt, Trajectory.failed(request, reason), RewardRecord.unscored(request, reason))


def mean_clean_score(answers: Sequence[Answer]) -> float:
    """Mean clean score of the answers that could be scored; NaN if none could."""
    scores = _clean_scores(answers)
    return sum(scores) / len(scores) if scores else float("nan")


def _clean_scores(answers: Sequence[Answer]) -> list[float]:
    return [answer.reward.clean for answer in answers if answer.reward.clean is not None]


def sampled_metrics(setting: SampledEvaluation, answers: Sequence[Answer]) -> dict[str, float]:
    """What several samples of each prompt tell; docs/evaluation.md has the estimators.

    Args:
        answers: all samples of the first prompt, then of the second, and so on. One without a score is left out; a
            prompt with fewer than k scores has no part in what is about k.

    Returns:
        ``pass_at_K``, the expected best score of K samples, and from 3 samples on ``majority_at_K``, the expected score
        of their most frequent answer; where scores are from 0 to 1 with ``_low`` and ``_high``, the ends of a 95 %
        interval over prompts.
    """
    votes = [
        [(answer.reward.answer_key, answer.reward.clean) for answer in group if answer.reward.clean is not None]
        for group in (answers[start : start + setting.samples] for start in range(0, len(answers), setting.samples))
    ]
    # Not the means of each prompt: those of scores from -1 to 2 may lie between 0 and 1 as well.
    is_bounded = all(0.0 <= score <= 1.0 for group in votes for _, score in group)
    found: dict[str, float] = {}
    for k in setting.sizes:
        usable = [group for group in votes if len(group) >= k]
        values = {f"pass_at_{k}": [best_of([score for _, score in group], k) for group in usable]}
        if k > 2:
            values[f"majority_at_{k}"] = [majority_of(group, k) for group in usable]
        for name, per_prompt in values.items():
            found[name] = fmean(per_prompt) if per_prompt else float("nan")
            found |= _ends(name, mean_interval(per_prompt, setting.samples // k) if is_bounded else None)
    return found


def _ends(name: str, interval: Estimate | None) -> dict[str, float]:
    return {} if interval is None else {f"{name}_low": interval.low, f"{name}_high": interval.high}


def category_name(value: Any) -> str:
    """What metrics call a category: its text with ``_`` for what is no letter, digit, dot or dash."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", "none" if value is None else str(value))[:40] or "_"


def split_metrics(answers: Sequence[Answer], category: str | None = None) -> dict[str, float]:
    """Means over the answers to one split's prompts, each over the answers that have the number.

    Args:
        category: column of the data; each of its values has an accuracy of its own.

    Returns:
        ``accuracy``, the clean score, and where all scores are 0 or 1 ``accuracy_low`` and ``accuracy_high``, the ends
        of its exact 95 % interval; ``truncated_frac``, the share that ended at the limit on tokens; ``reward/NAME``,
        the clean score of each reward function where there are several; every number that environments report of their
        conversations, by its name; and ``category/NAME`` with ``_low`` and ``_high``, the same as ``accuracy`` of one
        category.
    """
    values: dict[str, list[float]] = defaultdict(list)
    several = len({name for answer in answers for name in answer.reward.parts}) > 1
    for answer in answers:
        if not answer.trajectory.failure:
            values["truncated_frac"].append(float(answer.trajectory.finish_reason == "length"))
        for name, score in answer.reward.parts.items() if several else ():
            values[f"reward/{name}"].append(score)
        if answer.trajectory.outcome is not None:
            for name, value in answer.trajectory.outcome.metrics.items():
                values[name].append(value)
    means = {name: sum(found) / len(found) for name, found in values.items()}
    means["accuracy"] = mean_clean_score(answers)
    means |= _ends("accuracy", share_interval(_clean_scores(answers)))
    by_category: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers if category is not None else ():
        by_category[f"category/{category_name(answer.prompt.extra.get(category or ''))}"].append(answer)
    for name in sorted(by_category):
        means[name] = mean_clean_score(by_category[name])
        means |= _ends(name, share_interval(_clean_scores(by_category[name])))
    return means


async def evaluate(
    pool: RolloutPool,
    rewards: RewardPool,
    prompts: Mapping[str, Sequence[Prompt]],
    warn: Callable[[str], None] = log.warning,
    plan: EvaluationPlan | None = None,
) -> dict[str, dict[str, float]]:
    """What is measured of each split, as ``{split: {name: mean}}``; see :meth:`SplitAnswers.metrics`.

    Args:
        plan: None for greedy answers alone.
        warn: told of each split in which answers could not be scored: its mean is over the others.
    """
    plan = plan or EvaluationPlan()
    found = {}
    for split, answered in (await answer_splits(pool, rewards, prompts, plan)).items():
        found[split] = answered.metrics(plan.options)
        unscored = [answer.reward for answer in answered.all if answer.reward.clean is None]
        if unscored:
            told = f"evaluation on {split!r}: {len(unscored)} of {len(answered.all)} answers have no score"
            warn(f"{told} and are left out; the first: {unscored[0].outcome}: {unscored[0].error}")
    return found
