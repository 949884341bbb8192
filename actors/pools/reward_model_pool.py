"""The reward model workers as one scorer, used inside a reward service actor."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from typing import Any

from actors.faults import WorkerError, WorkerLost
from actors.pools.loss import reply, unwrapped
from actors.pools.members import Member, Replacing
from actors.pools.pool import Pool
from rollout.component import UserError
from rollout.rewards.base import RewardUnavailable
from rollout.trajectory import Message

log = logging.getLogger(__name__)

ASK_AGAIN_S = 1.0
MAX_CAUSE = 200
"""Characters of a lost worker's last words that are told."""


class RewardModelClient:
    """Sends each conversation to the least busy worker. Can be sent to another process before it is used.

    A worker that dies is started again by Ray, so what replaces it is the same handle once it answers. What it was
    scoring is unavailable, which is counted and called again; those calls wait until a worker is there.

    Args:
        workers: handles of :class:`actors.workers.reward_model_worker.RewardModelWorker`, all of one model.
    """

    def __init__(self, workers: Sequence[Any]) -> None:
        self._workers = tuple(workers)
        restarted: Replacing[Any] = Replacing(self._same, None, math.inf)
        self._pool: Pool[Any] = Pool("reward-model", self._workers, math.inf, restarted, _wait_until_back)

    async def ready(self) -> None:
        """Answers once every worker has loaded its model. Raises why one could not."""
        await asyncio.gather(*(_ready(f"reward-model-{i}", worker) for i, worker in enumerate(self._workers)))

    async def score(self, messages: Sequence[Message]) -> float:
        """See :class:`rollout.rewards.model.Scorer`."""
        async with self._pool.place("") as member:
            try:
                score: float = await reply(member.worker.score.remote(tuple(messages)), member.name, "score")
            except WorkerLost as lost:
                if self._pool.lose(member, str(lost)):
                    log.warning("%s was lost; Ray starts it again", member.name)
                raise RewardUnavailable(f"a reward model worker was lost: {lost.reason[:MAX_CAUSE]}") from None
            except WorkerError as error:  # what the worker raised has a meaning for whoever asks, such as an abstention
                raise unwrapped(error.__cause__ or error) from None
            return score

    def _same(self, index: int) -> Any:
        return self._workers[index]


async def _ready(name: str, worker: Any) -> None:
    try:
        await reply(worker.ready.remote(), name, "ready")
    except WorkerError as error:
        raise unwrapped(error.__cause__ or error) from None


async def _wait_until_back(member: Member[Any]) -> None:
    """Wait until a worker answers again, be it with an error: whoever asks it next will see that."""
    while True:
        try:
            await reply(member.worker.ready.remote(), member.name, "ready")
            return
        except WorkerLost:
            await asyncio.sleep(ASK_AGAIN_S)
        except (WorkerError, UserError):  # such as a model that cannot be loaded
            return
