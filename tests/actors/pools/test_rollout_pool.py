"""Requests over workers that die, hang and refuse: reissued, replaced, isolated, quarantined. On fake handles."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from actors.faults import Quarantined, TooManyQuarantined, WorkerError, WorkersKeepDying
from actors.pools.members import PoolObserver, Replacing
from actors.pools.rollout_pool import RolloutPool
from actors.pools.suspects import Suspects
from rollout.trajectory import Prompt, SampleRequest


class Method:
    """``handle.method.remote(...)``, and with ``options(num_returns=2)`` two results."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def remote(self, *arguments: Any) -> Any:
        return asyncio.ensure_future(self._call(*arguments))

    def options(self, num_returns: int) -> Any:
        assert num_returns == 2
        method = self

        class Two:
            def remote(self, *arguments: Any) -> tuple[Any, Any]:
                return method.remote(*arguments), "trajectory"

        return Two()


class Worker:
    """A worker on which certain prompts are fatal, endless or refused. Dead for good after the first fatal one."""

    def __init__(
        self, fatal: tuple[str, ...] = (), endless: tuple[str, ...] = (), refused: tuple[str, ...] = ()
    ) -> None:
        self.fatal, self.endless, self.refused = fatal, endless, refused
        self.death = asyncio.Event()
        self.served: list[str] = []
        self.together: set[str] = set()
        self.most_open = 0
        self.loaded: list[str] = []
        self.sample, self.respond_greedily = Method(self._serve), Method(self._serve)
        self.start, self.stats, self.stop = Method(self._start), Method(self._start), Method(self._start)

    async def _start(self) -> dict[str, float]:
        if self.death.is_set():
            raise ActorDiedError()
        return {"n": 1.0}

    async def _serve(self, request: SampleRequest) -> str:
        name = request.prompt.prompt_id
        if self.death.is_set():
            raise ActorDiedError()
        self.together.add(name)
        self.most_open = max(self.most_open, len(self.together))
        try:
            for _ in range(3):
                await asyncio.sleep(0)
            if name in self.fatal:
                self.death.set()
            if name in self.endless:
                await self.death.wait()
            if self.death.is_set():
                raise ActorDiedError()
            if name in self.refused:
                raise RayTaskError("sample", "trace", ValueError("this prompt is odd"))
            self.served.append(request.trajectory_id)
            return request.trajectory_id
        finally:
            self.together.discard(name)


class Seen(PoolObserver):
    def __init__(self) -> None:
        self.events: list[str] = []
        self.reissued: list[str] = []
        self.quarantined: list[str] = []

    def worker_event(self, worker: str, text: str) -> None:
        self.events.append(f"{worker} {text}")

    def request_reissued(self, trajectory_id: str, cause: str) -> None:
        self.reissued.append(trajectory_id)

    def prompt_quarantined(self, prompt_id: str, reason: str) -> None:
        self.quarantined.append(prompt_id)


class Farm:
    """A pool with workers made to measure, and what it did to them."""

    def __init__(self, number: int, monkeypatch: pytest.MonkeyPatch, max_quarantined: int = 5, **kind: Any) -> None:
        self.kind, self.seen = kind, Seen()
        self.made: list[Worker] = []
        self.killed: list[Any] = []
        monkeypatch.setattr("ray.kill", self._kill)
        replacing = Replacing(self.create, 5.0, 4)
        workers = [self.create(i) for i in range(number)]
        self.pool = RolloutPool(workers, 4, 0.5, replacing, Suspects(max_quarantined), self.seen)

        async def load(name: str, handle: Worker) -> None:
            handle.loaded.append(name)

        self.pool.set_weights(load)

    def create(self, index: int) -> Worker:
        self.made.append(Worker(**self.kind))
        return self.made[-1]

    def _kill(self, handle: Worker, no_restart: bool) -> None:
        handle.death.set()
        self.killed.append(handle)


def request(name: str, index: int = 0) -> SampleRequest:
    return SampleRequest(Prompt(prompt_id=name, messages=(), token_ids=(1,), reference=None, task="t"), index)


async def sample_all(farm: Farm, names: list[str]) -> list[Any]:
    calls = (farm.pool.sample(request(name)) for name in names)
    return list(await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 20.0))


NAMES = [f"p{i}" for i in range(12)]


async def test_requests_of_a_dead_worker_are_asked_for_again_and_it_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    farm = Farm(2, monkeypatch)
    farm.made[0].death.set()
    results = await sample_all(farm, NAMES)
    assert [result[0] for result in results] == [f"{name}#0" for name in NAMES]
    assert 1 <= len(farm.seen.reissued) <= 4
    while farm.pool.num_replaced < 1:
        await asyncio.sleep(0.01)
    assert farm.made[2].loaded == ["rollout-0"], "a replacement gets the weights before it serves"
    assert list(farm.pool.workers_by_name.values()) == [farm.made[2], farm.made[1]]
    assert farm.seen.events[0].startswith("rollout-0 lost: rollout-0 failed in sample: its process died")
    await sample_all(farm, NAMES)
    assert farm.made[2].served


async def test_engines_that_are_ended_together_are_replaced_and_no_prompt_is_suspected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    farm = Farm(2, monkeypatch, endless=("p0",))
    asking = asyncio.ensure_future(sample_all(farm, ["p0"]))
    while not farm.made[0].together:
        await asyncio.sleep(0)
    farm.kind = {}  # only the first two never answer
    farm.pool.end_all("send_weights", "the learner is gone")
    assert farm.killed == farm.made[:2]
    assert farm.pool.workers_by_name == {}
    assert [result[0] for result in await asking] == ["p0#0"]
    assert not farm.pool.suspects.must_be_alone("p0")
    assert farm.seen.events[0] == "rollout-0 lost: rollout-0 failed in send_weights: the learner is gone"


async def test_the_prompt_that_kills_workers_is_found_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    farm = Farm(2, monkeypatch, fatal=("p5",))
    results = await sample_all(farm, NAMES)
    bad = results.pop(5)
    assert isinstance(bad, Quarantined)
    assert "its process died" in str(bad)
    assert [result[0] for result in results] == [f"{name}#0" for name in NAMES if name != "p5"]
    assert farm.seen.quarantined == ["p5"]
    assert farm.pool.num_replaced in (2, 3)
    with pytest.raises(Quarantined):
        await farm.pool.sample(request("p5", 1))


class NodeGone(ActorDiedError):
    """As Ray tells of an actor whose host has gone."""

    def __str__(self) -> str:
        return "The actor died unexpectedly. The actor died because its node has died. Node Id: 1"


@pytest.mark.parametrize(
    "seems", [NodeGone(), ActorUnavailableError("connection reset", b"\0" * 16)], ids=["known", "found out"]
)
async def test_nobody_is_suspected_of_the_loss_of_a_host(monkeypatch: pytest.MonkeyPatch, seems: Exception) -> None:
    """Also if at first nobody knows more than that the worker cannot be reached."""
    farm = Farm(1, monkeypatch, endless=("p0",))
    for number in (1, 2, 3):
        gone = farm.made[-1]
        gone.sample, gone.stats = Method(partial(_lost, seems)), Method(partial(_lost, NodeGone()))
        if number == 3:
            farm.kind = {}
        asking = asyncio.ensure_future(farm.pool.sample(request("p0")))
        while farm.pool.num_replaced < number:
            await asyncio.sleep(0)
        if number < 3:
            asking.cancel()
    assert str((await asyncio.wait_for(asking, 10))[0]) == "p0#0"
    assert not farm.pool.suspects.must_be_alone("p0") and farm.seen.quarantined == []
    while len(farm.killed) < 3:
        await asyncio.sleep(0)


async def test_an_unreachable_worker_that_died_by_itself_puts_its_prompt_under_suspicion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    farm = Farm(1, monkeypatch)
    unreachable = ActorUnavailableError("connection reset", b"\0" * 16)
    first = farm.made[0]
    first.sample, first.stats = Method(partial(_lost, unreachable)), Method(partial(_lost, ActorDiedError()))
    assert str((await asyncio.wait_for(farm.pool.sample(request("p0")), 10))[0]) == "p0#0"
    while farm.killed != farm.made[:1]:
        await asyncio.sleep(0)
    assert farm.pool.suspects._strikes == {"p0": 1}


async def _lost(error: Exception, *_: Any) -> None:
    raise error


async def test_the_prompt_that_hangs_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    farm = Farm(1, monkeypatch, endless=("p2",))
    results = await sample_all(farm, ["p1", "p2", "p3"])
    assert isinstance(results[1], Quarantined)
    assert "no answer within 0.5 s" in str(results[1])
    assert [results[0][0], results[2][0]] == ["p1#0", "p3#0"]


async def test_a_prompt_that_is_refused_twice_is_set_aside_and_no_worker_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    farm = Farm(2, monkeypatch, refused=("p3",))
    results = await sample_all(farm, NAMES)
    assert isinstance(results[3], Quarantined)
    assert "this prompt is odd" in str(results[3])
    assert farm.killed == []


async def test_too_many_prompts_set_aside_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    farm = Farm(2, monkeypatch, max_quarantined=2, refused=tuple(NAMES))
    results = await sample_all(farm, NAMES)
    assert any(isinstance(result, TooManyQuarantined) for result in results)


async def test_workers_that_never_start_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    farm = Farm(1, monkeypatch)
    farm.made[0].death.set()
    monkeypatch.setattr(Worker, "_start", _refuse)
    (result,) = await sample_all(farm, ["p0"])
    assert isinstance(result, WorkersKeepDying)
    assert "lost 5 times and no request was finished in between" in str(result)
    assert "no memory" in str(result)


async def _refuse(_: Worker) -> None:
    raise RuntimeError("no memory")


async def test_a_replacement_loads_again_if_the_weights_moved_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    farm = Farm(1, monkeypatch)
    loads: list[str] = []

    async def second(name: str, handle: Worker) -> None:
        loads.append("second")

    async def first(name: str, handle: Worker) -> None:
        loads.append("first")
        farm.pool.set_weights(second)

    farm.pool.set_weights(first)
    farm.made[0].death.set()
    await sample_all(farm, ["p0"])
    assert loads == ["first", "second"]


async def test_a_call_to_all_leaves_out_the_lost_and_raises_what_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    farm = Farm(3, monkeypatch)
    farm.made[1].death.set()
    assert await farm.pool.every("stats") == {"rollout-0": {"n": 1.0}, "rollout-2": {"n": 1.0}}
    farm.made[0].stats = Method(_report)
    with pytest.raises(WorkerError, match="rollout-0 failed in stats: ValueError: odd"):
        await farm.pool.every("stats")


async def _report() -> None:
    raise RayTaskError("stats", "trace", ValueError("odd"))


async def test_without_replacements_the_first_loss_ends_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.kill", lambda handle, no_restart: None)
    worker = Worker()
    worker.death.set()
    pool = RolloutPool([worker], 4, 1.0)
    with pytest.raises(WorkerError, match="rollout-0 failed in sample: its process died"):
        await pool.respond_greedily(request("p"))
