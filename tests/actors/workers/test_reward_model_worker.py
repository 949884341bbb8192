"""Requests become batches, and a lost worker's requests become retries."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from actors.pools.reward_model_pool import RewardModelClient
from actors.workers.reward_model_worker import Batcher, RewardModelWorker, ServingOptions
from learner.reward_model.model import RewardModel
from rollout.rewards.base import Abstain, RewardUnavailable
from rollout.trajectory import Message


class Model:
    """Scores a row with its sum; each batch waits until it is let go."""

    def __init__(self, wait: bool = False) -> None:
        self.batches: list[int] = []
        self.open = asyncio.Event()
        if not wait:
            self.open.set()

    async def compute(self, rows: Sequence[list[int]]) -> list[float]:
        self.batches.append(len(rows))
        await self.open.wait()
        if any(row == [13] for row in rows):
            raise RuntimeError("unlucky")
        return [float(sum(row)) for row in rows]


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_requests_at_the_same_time_share_batches_and_get_their_own_scores() -> None:
    model = Model()
    batcher = Batcher(model.compute, batch_size=4, max_wait_s=5.0)
    scores = await asyncio.gather(*(batcher.score([number, 1]) for number in range(12)))
    assert scores == [float(number + 1) for number in range(12)]
    assert model.batches == [4, 4, 4]


async def test_a_batch_that_does_not_fill_is_sent_after_the_wait() -> None:
    model = Model()
    batcher = Batcher(model.compute, batch_size=4, max_wait_s=0.05)
    began = asyncio.get_running_loop().time()
    assert list(await asyncio.gather(batcher.score([1]), batcher.score([2]))) == [1.0, 2.0]
    assert 0.045 <= asyncio.get_running_loop().time() - began < 5.0
    assert model.batches == [2]


async def test_the_next_batch_fills_while_one_is_computed() -> None:
    model = Model(wait=True)
    batcher = Batcher(model.compute, batch_size=8, max_wait_s=0.0)
    first = asyncio.ensure_future(batcher.score([1]))
    await until(lambda: model.batches == [1])
    others = [asyncio.ensure_future(batcher.score([number])) for number in range(5)]
    await asyncio.sleep(0)
    model.open.set()
    assert await asyncio.gather(first, *others) == [1.0, 0.0, 1.0, 2.0, 3.0, 4.0]
    assert model.batches == [1, 5]


async def test_an_error_is_told_to_its_batch_only() -> None:
    model = Model()
    batcher = Batcher(model.compute, batch_size=2, max_wait_s=0.0)
    answers = await asyncio.gather(*(batcher.score([n]) for n in (13, 1, 2, 3)), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["unlucky", "unlucky", "2.0", "3.0"]


async def test_what_nobody_waits_for_is_not_computed() -> None:
    model = Model(wait=True)
    batcher = Batcher(model.compute, batch_size=8, max_wait_s=0.0)
    first = asyncio.ensure_future(batcher.score([1]))
    await until(lambda: model.batches == [1])
    given_up, kept = (asyncio.ensure_future(batcher.score([n])) for n in (2, 3))
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.sleep(0)
    model.open.set()
    assert (await first, await kept) == (1.0, 3.0)
    assert model.batches == [1, 1]


OPTIONS = ServingOptions("judge", 8, 4, 0.0, "float32", "cpu", timeout_s=0.1)


class Judge:
    """A model whose forward pass waits until it is let go."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return [len(messages)]

    def score(self, rows: Sequence[list[int]]) -> list[float]:
        self.open.wait(30)
        return [float(row[0]) for row in rows]


async def test_a_hung_pass_in_the_askers_own_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Judge()
    monkeypatch.setattr(RewardModel, "load", lambda *_: judge)
    worker = RewardModelWorker(OPTIONS, exit_when_hung=False)
    with pytest.raises(RewardUnavailable, match=r"a forward pass of 1 conversations takes over 0.1 s"):
        await worker.score([{}])
    judge.open.set()
    assert await worker.score([{}, {}]) == 2.0


async def test_a_model_that_could_not_be_loaded_is_loaded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, failures = Judge(), [OSError("the disk is asleep")]
    judge.open.set()

    def load(*_: object) -> Judge:
        if failures:
            raise failures.pop()
        return judge

    monkeypatch.setattr(RewardModel, "load", load)
    worker = RewardModelWorker(OPTIONS, exit_when_hung=False)
    with pytest.raises(OSError, match="asleep"):
        await worker.ready()
    await worker.ready()
    assert await worker.score([{}]) == 1.0


class Handle:
    """An actor handle: dies when told, and is back after some ``ready`` calls."""

    def __init__(self) -> None:
        self.dead_for = 0
        self.asked = 0
        self.answer: Any = 1.0
        self.gate = asyncio.Event()
        self.gate.set()
        self.score = self.ready = self

    def remote(self, messages: Any = None) -> Any:
        return self._ready() if messages is None else self._score()

    async def _ready(self) -> None:
        if self.dead_for > 0:
            self.dead_for -= 1
            raise ActorDiedError

    async def _score(self) -> Any:
        self.asked += 1
        await self.gate.wait()
        if self.dead_for > 0:
            raise ActorDiedError
        if isinstance(self.answer, Exception):
            raise RayTaskError("score", "traceback", self.answer)
        return self.answer


async def test_the_least_busy_worker_is_asked() -> None:
    busy, idle = Handle(), Handle()
    busy.gate.clear()
    client = RewardModelClient([busy, idle])
    first = asyncio.ensure_future(client.score(()))
    await until(lambda: busy.asked == 1)
    assert [await client.score(()) for _ in range(3)] == [1.0] * 3
    assert (busy.asked, idle.asked) == (1, 3)
    busy.gate.set()
    await first


async def test_a_lost_worker_is_unavailable_then_left_alone_until_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.pools.reward_model_pool.ASK_AGAIN_S", 0.001)
    lost, other = Handle(), Handle()
    lost.dead_for, lost.answer = 3, 2.0
    client = RewardModelClient([lost, other])
    with pytest.raises(RewardUnavailable, match="a reward model worker was lost"):
        await client.score(())
    assert await client.score(()) == 1.0  # by the other one
    await until(lambda: lost.dead_for == 0)
    other.dead_for = 10**9
    async with asyncio.timeout(10):
        while True:
            try:
                assert await client.score(()) == 2.0
                break
            except RewardUnavailable:
                continue
    with pytest.raises(TimeoutError):
        lost.dead_for = 10**9
        async with asyncio.timeout(0.2):
            while True:  # unavailable once, then there is nobody to ask
                try:
                    await client.score(())
                except RewardUnavailable:
                    continue


async def test_what_a_worker_raises_arrives_as_it_was_raised() -> None:
    handle = Handle()
    handle.answer = Abstain("too long")
    with pytest.raises(Abstain, match=r"^too long$"):
        await RewardModelClient([handle]).score(())
