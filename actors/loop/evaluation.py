"""Clean scores on held-out prompts: greedy answers from the running engines, scored without noise."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from actors.faults import Quarantined
from actors.pools.reward_pool import RewardPool
from actors.pools.rollout_pool import RolloutPool
from rollout.audit.intervals import share_interval
from rollout.scoring.record import RewardRecord
from rollout.trajectory import Prompt, SampleRequest, Trajectory

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """One greedy answer and its clean score."""

    prompt: Prompt
    trajectory: Trajectory
    reward: RewardRecord


async def answer_all(pool: RolloutPool, rewards: RewardPool, prompts: Sequence[Prompt]) -> list[Answer]:
    """Greedy answers to all prompts, in their order."""

    async def one(prompt: Prompt) -> Answer:
        try:
            trajectory = await pool.respond_greedily(SampleRequest(prompt, 0))
        except Quarantined as reason:
            return _unanswered(prompt, str(reason))
        if trajectory.failure:
            return _unanswered(prompt, f"environment: {trajectory.failure}")
        return Answer(prompt, trajectory, await rewards.clean_score(prompt, trajectory))

    return list(await asyncio.gather(*map(one, prompts)))


def _unanswered(prompt: Prompt, reason: str) -> Answer:
    """What stands for the answer to a prompt that has none: no token and no score."""
    request = SampleRequest(prompt, 0)
    return Answer(prompt, Trajectory.failed(request, reason), RewardRecord.unscored(request, reason))


def mean_clean_score(answers: Sequence[Answer]) -> float:
    """Mean clean score of the answers that could be scored; NaN if none could."""
    scores = _clean_scores(answers)
    return sum(scores) / len(scores) if scores else float("nan")


def _clean_scores(answers: Sequence[Answer]) -> list[float]:
    return [answer.reward.clean for answer in answers if answer.reward.clean is not None]


def split_metrics(answers: Sequence[Answer]) -> dict[str, float]:
    """Means over the answers to one split's prompts, each over the answers that have the number.

    Returns:
        ``accuracy``, the clean score, and where all scores are 0 or 1 ``accuracy_low`` and ``accuracy_high``, the ends
        of its exact 95 % interval; ``reward/NAME``, the clean score of each reward function where there are
        several; and every number that environments report of their conversations, by its name.
    """
    values: dict[str, list[float]] = defaultdict(list)
    several = len({name for answer in answers for name in answer.reward.parts}) > 1
    for answer in answers:
        for name, score in answer.reward.parts.items() if several else ():
            values[f"reward/{name}"].append(score)
        if answer.trajectory.outcome is not None:
            for name, value in answer.trajectory.outcome.metrics.items():
                values[name].append(value)
    means = {name: sum(found) / len(found) for name, found in values.items()}
    means["accuracy"] = mean_clean_score(answers)
    if interval := share_interval(_clean_scores(answers)):
        means |= {"accuracy_low": interval.low, "accuracy_high": interval.high}
    return means


async def evaluate(
    pool: RolloutPool,
    rewards: RewardPool,
    prompts: Mapping[str, Sequence[Prompt]],
    warn: Callable[[str], None] = log.warning,
) -> dict[str, dict[str, float]]:
    """:func:`split_metrics` of each split, as ``{split: {name: mean}}``.

    Args:
        warn: told of each split in which answers could not be scored: its mean is over the others.
    """
    everything = [prompt for split in prompts.values() for prompt in split]
    answers = iter(await answer_all(pool, rewards, everything))
    found = {}
    for split, members in prompts.items():
        answered = [next(answers) for _ in members]
        found[split] = split_metrics(answered)
        unscored = [answer.reward for answer in answered if answer.reward.clean is None]
        if unscored:
            told = f"evaluation on {split!r}: {len(unscored)} of {len(answered)} answers have no score"
            warn(f"{told} and are left out; the first: {unscored[0].outcome}: {unscored[0].error}")
    return found
