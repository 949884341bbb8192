"""Who is named when a learner rank is lost: the rank, whoever noticed it."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from actors.faults import DataLost, LearnerLost, WorkerDied, WorkerError, WorkerHung
from actors.pools.learner_ranks import LearnerRanks


class Rank:
    """Answers how much memory it has, if it lives."""

    def __init__(self, is_alive: bool) -> None:
        self._is_alive = is_alive
        self.rss = self

    def remote(self) -> Any:
        async def answer() -> int:
            if not self._is_alive:
                raise ActorDiedError()
            return 1

        return asyncio.ensure_future(answer())


def ranks(*alive: bool) -> LearnerRanks:
    return LearnerRanks([Rank(is_alive) for is_alive in alive], Path(), 1, 0, 5.0, nullcontext)


@pytest.mark.parametrize(
    ("error", "alive", "named"),
    [
        (WorkerDied("learner-1", "train", "why"), (True, True), "learner-1"),
        (WorkerHung("learner-0, learner-1", "train", "why"), (True, True), "learner-0, learner-1"),
        (WorkerError("learner-0", "train", "the other has gone"), (True, False), "learner-1"),
        (DataLost("rollout-0", "load_weights", "why"), (False, True), "learner-0"),
        (WorkerDied("rollout-0", "load_weights", "why"), (True, False), "learner-1"),
    ],
)
async def test_the_rank_that_was_lost_is_named(error: WorkerError, alive: tuple[bool, ...], named: str) -> None:
    with pytest.raises(LearnerLost, match=f"lost {named} in {error.method}: {error.reason}"):
        await ranks(*alive).raise_loss(error)


@pytest.mark.parametrize("error", [DataLost("learner-0", "train", "why"), WorkerError("learner-0", "train", "why")])
async def test_where_all_ranks_live_none_is_lost(error: WorkerError) -> None:
    await ranks(True, True).raise_loss(error)
