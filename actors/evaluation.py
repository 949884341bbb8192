"""Clean accuracy on held-out prompts: greedy answers from the running engines, scored without noise."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from actors.reward_pool import RewardPool
from actors.rollout_pool import RolloutPool
from rollout.trajectory import Prompt, RewardRecord, SampleRequest, Trajectory


@dataclass(frozen=True, slots=True)
class Answer:
    """One greedy answer and its clean score."""

    prompt: Prompt
    trajectory: Trajectory
    reward: RewardRecord


async def answer_all(pool: RolloutPool, rewards: RewardPool, prompts: Sequence[Prompt]) -> list[Answer]:
    """Greedy answers to all prompts, in their order."""

    async def one(prompt: Prompt) -> Answer:
        trajectory = await pool.answer(SampleRequest(prompt, 0))
        return Answer(prompt, trajectory, await rewards.clean_score(prompt, trajectory))

    return list(await asyncio.gather(*map(one, prompts)))


def mean_clean_score(answers: Sequence[Answer]) -> float:
    """Mean clean score of the answers that could be scored; NaN if none could."""
    scores = [answer.reward.clean for answer in answers if answer.reward.clean is not None]
    return sum(scores) / len(scores) if scores else float("nan")


async def evaluate(
    pool: RolloutPool, rewards: RewardPool, prompts: Mapping[str, Sequence[Prompt]]
) -> dict[str, float]:
    """Mean clean score by split, as ``{split: score}``."""
    everything = [prompt for split in prompts.values() for prompt in split]
    answers = iter(await answer_all(pool, rewards, everything))
    return {split: mean_clean_score([next(answers) for _ in members]) for split, members in prompts.items()}
