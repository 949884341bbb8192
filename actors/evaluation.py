"""Clean accuracy on held-out prompts: greedy answers from the running engines, scored without noise."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from actors.faults import Quarantined
from actors.reward_pool import RewardPool
from actors.rollout_pool import RolloutPool
from rollout.trajectory import FinishReason, Prompt, RewardOutcome, RewardRecord, SampleRequest, Trajectory

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
            trajectory = await pool.answer(SampleRequest(prompt, 0))
        except Quarantined as reason:
            return _unanswered(prompt, str(reason))
        return Answer(prompt, trajectory, await rewards.clean_score(prompt, trajectory))

    return list(await asyncio.gather(*map(one, prompts)))


def _unanswered(prompt: Prompt, reason: str) -> Answer:
    """What stands for the answer to a prompt that is set aside: no token and no score."""
    num_tokens = len(prompt.token_ids)
    nothing = (prompt.token_ids, (False,) * num_tokens, (0.0,) * num_tokens, "", FinishReason.ABORT, 0, 0)
    record = RewardRecord(prompt.prompt_id, 0, None, None, False, {}, RewardOutcome.ERROR, reason)
    return Answer(prompt, Trajectory(prompt.prompt_id, 0, *nothing), record)


def mean_clean_score(answers: Sequence[Answer]) -> float:
    """Mean clean score of the answers that could be scored; NaN if none could."""
    scores = [answer.reward.clean for answer in answers if answer.reward.clean is not None]
    return sum(scores) / len(scores) if scores else float("nan")


async def evaluate(
    pool: RolloutPool,
    rewards: RewardPool,
    prompts: Mapping[str, Sequence[Prompt]],
    warn: Callable[[str], None] = log.warning,
) -> dict[str, float]:
    """Mean clean score by split, as ``{split: score}``.

    Args:
        warn: told of each split in which answers could not be scored: its mean is over the others.
    """
    everything = [prompt for split in prompts.values() for prompt in split]
    answers = iter(await answer_all(pool, rewards, everything))
    means = {}
    for split, members in prompts.items():
        answered = [next(answers) for _ in members]
        means[split] = mean_clean_score(answered)
        unscored = [answer.reward for answer in answered if answer.reward.clean is None]
        if unscored:
            told = f"evaluation on {split!r}: {len(unscored)} of {len(answered)} answers have no score"
            warn(f"{told} and are left out; the first: {unscored[0].outcome}: {unscored[0].error}")
    return means
