"""Both routes on fakes: what is loaded when, what is compared, what a replacement gets, what ends the publish."""

from __future__ import annotations

import asyncio
import inspect
import pickle
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest

from actors.faults import DataLost, LearnerLost, WorkerDied, WorkerError
from actors.pools.weight_sync import NcclRoute, ObjectStoreRoute, SyncReport
from rollout.sampling.engine import LoadOutcome
from rollout.sampling.weight_check import Canary, TensorFact, WeightMismatchError, differences, facts_of

CANARY = Canary((1, 2, 3), 1e-3)
FAST_S = 0.05


class Learner:
    """Its log-probability of every token is its only weight."""

    def __init__(self) -> None:
        self.value = -1.0
        self.calls: list[str] = []
        self.engines: list[Any] = []
        self.lost = self.lost_in_opening = ""
        self.is_dead = False

    async def raise_loss(self, error: WorkerError) -> None:
        if self.is_dead:
            raise LearnerLost(f"lost learner-0 in {error.method}: {error.reason}")

    async def export_weights(self, checksums: bool) -> tuple[Any, dict[str, TensorFact]]:
        self.calls.append("export_weights")
        weights = {"w": np.array([self.value], np.float32)}
        return weights, facts_of(weights, checksums)

    async def logprobs(self, token_ids: Sequence[int]) -> list[float]:
        self.calls.append("logprobs")
        value = self.value
        await asyncio.sleep(0)
        return [0.0] + [value] * (len(token_ids) - 1)

    async def open_transfer(self, engines: list[Any], engine_world_size: int) -> str:
        self.calls.append(f"open_transfer to {len(engines)}")
        self.engines = engines
        return self.lost_in_opening

    async def send_weights(self) -> str:
        self.calls.append("send_weights")
        for engine in self.engines:
            engine.weight = self.value
        return self.lost

    async def send_weights_to(self, engine: Any, engine_world_size: int) -> str:
        self.calls.append("send_weights_to")
        engine.weight = self.value
        return self.lost


class Worker:
    """A rollout worker, and its own handle."""

    def __init__(self) -> None:
        self.weight, self.version = 0.0, -1
        self.hangs = False
        self.tamper: Callable[[dict[str, np.ndarray]], None] = lambda weights: None
        self.loads = True
        self.left_out: tuple[str, ...] = ()
        self.calls: list[str] = []

    def __getattr__(self, method: str) -> Any:
        class Call:
            remote = staticmethod(lambda *arguments: self.run(method, *arguments))

        return Call

    async def run(self, method: str, *arguments: Any) -> Any:
        self.calls.append(method)
        if self.hangs:
            await asyncio.Event().wait()
        if method == "load_weights":
            loaded = self.load(*arguments)
            return await loaded if inspect.isawaitable(loaded) else loaded
        if method == "score":
            return [0.0] + [self.weight] * (len(arguments[0]) - 1)
        if method == "set_version":
            (self.version,) = arguments
        return None

    def load(self, weights: dict[str, np.ndarray], facts: dict[str, TensorFact], version: int) -> LoadOutcome:
        arrived: dict[str, np.ndarray] = pickle.loads(pickle.dumps(weights))
        self.tamper(arrived)
        refused = tuple(differences(facts, facts_of(arrived, facts["w"].checksum is not None).items()))
        if not refused and self.loads:
            self.weight, self.version = float(arrived["w"][0]), version
        return LoadOutcome(refused, self.left_out, 0.25)


class Pool:
    def __init__(self, num_workers: int) -> None:
        self.workers_by_name = {f"rollout-{i}": Worker() for i in range(num_workers)}
        self.load: Callable[[str, Any], Awaitable[None]] | None = None
        self.ended: list[str] = []

    async def every(self, method: str, *arguments: Any) -> dict[str, Any]:
        return {name: await worker.run(method, *arguments) for name, worker in self.workers_by_name.items()}

    def set_weights(self, load: Callable[[str, Any], Awaitable[None]]) -> None:
        self.load = load

    def end_all(self, method: str, cause: str) -> None:
        self.ended.append(cause)
        self.workers_by_name.clear()

    async def replace(self, name: str) -> Worker:
        """What the real pool does with a lost worker."""
        worker = Worker()
        assert self.load is not None
        await self.load(name, worker)
        self.workers_by_name[name] = worker
        return worker


def object_store(pool: Any, learner: Any, canary: Canary | None = CANARY) -> ObjectStoreRoute:
    return ObjectStoreRoute(learner, pool, canary, FAST_S)


def nccl(pool: Any, learner: Any) -> NcclRoute:
    return NcclRoute(learner, pool, 1, CANARY, FAST_S)


async def test_weights_that_went_with_the_learner_are_called_the_learner_s_loss() -> None:
    pool, learner = Pool(1), Learner()

    async def lose(worker: str) -> None:
        raise DataLost(worker, "load_weights", "data it needs were lost with another process")

    pool.workers_by_name["rollout-0"].load = lambda *_: lose("rollout-0")  # type: ignore[method-assign, assignment]
    with pytest.raises(DataLost):
        await object_store(pool, learner).publish(1)
    learner.is_dead = True
    with pytest.raises(LearnerLost, match="lost learner-0 in load_weights: data it needs"):
        await object_store(pool, learner).publish(1)


async def test_a_publish_reports_the_gap_and_whether_weights_changed() -> None:
    pool, learner = Pool(2), Learner()
    route = object_store(pool, learner)
    reports = [await route.publish(1)]
    reports.append(await route.publish(2))
    learner.value = -1.5
    reports.append(await route.publish(3))
    assert [report.weights_changed for report in reports] == [None, False, True]
    assert [report.version for report in reports] == [1, 2, 3]
    assert all(report.canary_gap_max == 0.0 for report in reports)
    assert all(report.verify_s >= 0.25 for report in reports)
    assert [(w.version, w.weight) for w in pool.workers_by_name.values()] == [(3, -1.5)] * 2
    assert learner.calls == ["export_weights", "logprobs"] * 3


async def test_a_refused_transfer_names_worker_and_tensor() -> None:
    pool, learner = Pool(2), Learner()
    route = object_store(pool, learner)
    await route.publish(1)
    learner.value = -2.0

    def flip(weights: dict[str, np.ndarray]) -> None:
        weights["w"].view(np.uint8)[0] ^= 1

    pool.workers_by_name["rollout-1"].tamper = flip
    with pytest.raises(WeightMismatchError, match=r"version 2 is not what rollout-1 holds: w: expected.*kept"):
        await route.publish(2)
    assert pool.workers_by_name["rollout-1"].version == 1


async def test_a_loader_that_says_it_left_something_out_is_believed() -> None:
    pool = Pool(1)
    pool.workers_by_name["rollout-0"].left_out = ("model.norm.weight",)
    with pytest.raises(WeightMismatchError, match=r"model.norm.weight: left out by vLLM's loader"):
        await object_store(pool, Learner()).publish(1)


async def test_the_canary_catches_a_loader_that_loads_nothing() -> None:
    pool, learner = Pool(3), Learner()
    route = object_store(pool, learner)
    await route.publish(1)
    learner.value = -1.5
    pool.workers_by_name["rollout-2"].loads = False
    with pytest.raises(WeightMismatchError, match=r"rollout-2.*by up to 0.5 nats"):
        await route.publish(2)


async def test_without_a_canary_nothing_is_compared_but_names_and_shapes() -> None:
    pool, learner = Pool(1), Learner()
    route = object_store(pool, learner, canary=None)
    worker = pool.workers_by_name["rollout-0"]
    worker.tamper = lambda weights: weights["w"].fill(5.0)
    report = await route.publish(1)
    assert (report.canary_gap_max, report.weights_changed, worker.weight) == (None, None, 5.0)
    assert "score" not in worker.calls
    assert learner.calls == ["export_weights"]
    worker.tamper = lambda weights: weights.clear()
    with pytest.raises(WeightMismatchError, match="w: missing"):
        await route.publish(2)


async def test_a_replacement_gets_the_published_weights_and_is_checked() -> None:
    pool, learner = Pool(2), Learner()
    route = object_store(pool, learner)
    await route.publish(4)
    learner.value = -9.0  # an update that is not published yet
    worker = await pool.replace("rollout-0")
    assert (worker.version, worker.weight, worker.calls) == (4, -1.0, ["load_weights", "score"])
    await route.publish(5)
    assert worker.weight == -9.0


async def test_a_replacement_that_does_not_answer_has_a_deadline() -> None:
    pool = Pool(1)
    await object_store(pool, Learner()).publish(1)
    hanging = Worker()
    hanging.hangs = True
    assert pool.load is not None
    with pytest.raises(WorkerError, match=r"rollout-0 failed in load_weights: no answer within 0.05 s"):
        await pool.load("rollout-0", hanging)


async def test_a_lost_worker_has_no_say() -> None:
    """With nobody to ask there is no gap; the replacement is checked before it serves."""
    pool = Pool(1)
    pool.workers_by_name.clear()
    report = await object_store(pool, Learner()).publish(1)
    assert report.canary_gap_max is None
    assert "sync/canary_gap_max" not in report.metrics()


async def test_nccl_pauses_sends_names_the_version_and_asks_the_canary() -> None:
    pool, learner = Pool(2), Learner()
    route = nccl(pool, learner)
    for version in (1, 2):
        assert (await route.publish(version)).canary_gap_max == 0.0
    assert learner.calls == ["open_transfer to 2", "send_weights", "logprobs", "send_weights", "logprobs"]
    assert pool.workers_by_name["rollout-1"].calls == ["pause", "set_version", "resume", "score"] * 2


async def test_nccl_opens_a_new_group_after_a_replacement() -> None:
    pool, learner = Pool(2), Learner()
    route = nccl(pool, learner)
    await route.publish(1)
    worker = await pool.replace("rollout-1")
    assert (worker.version, worker.weight) == (1, -1.0)
    learner.calls.clear()
    learner.value = -3.0
    await route.publish(2)
    assert learner.calls[:2] == ["open_transfer to 2", "send_weights"]
    assert worker.weight == -3.0


async def test_nccl_brings_a_replacement_up_by_its_own_route() -> None:
    """Nothing goes through the object store; its cache is emptied, since it may have loaded once before."""
    pool, learner = Pool(2), Learner()
    await nccl(pool, learner).publish(4)
    learner.calls.clear()
    worker = await pool.replace("rollout-0")
    assert learner.calls == ["send_weights_to", "logprobs"]
    assert worker.calls == ["pause", "set_version", "resume", "score"]
    assert (worker.version, worker.weight) == (4, -1.0)
    learner.lost = "engine 0 failed in transfer (update): its process died"
    with pytest.raises(WorkerDied, match="rollout-1 failed in send_weights: engine 0 failed in transfer"):
        await pool.replace("rollout-1")


async def test_nccl_checks_a_replacement_by_the_canary() -> None:
    pool, learner = Pool(1), Learner()
    await nccl(pool, learner).publish(1)

    async def send_nothing(engine: Any, engine_world_size: int) -> str:
        return ""

    learner.send_weights_to = send_nothing  # type: ignore[method-assign]
    with pytest.raises(WeightMismatchError, match="version 1 is not what rollout-0 holds"):
        await pool.replace("rollout-0")


@pytest.mark.parametrize("stage", ["lost", "lost_in_opening"])
async def test_nccl_ends_all_engines_when_one_is_lost_and_goes_on_with_replacements(stage: str) -> None:
    """The others wait for weights that will never come."""
    pool, learner = Pool(2), Learner()
    route = nccl(pool, learner)
    setattr(learner, stage, "engine 1 failed in transfer: its process died")
    report = await route.publish(1)
    assert report.canary_gap_max is None
    assert pool.ended == ["an engine was lost before all had their weights: " + getattr(learner, stage)]
    setattr(learner, stage, "")
    worker = await pool.replace("rollout-0")
    assert (worker.version, worker.weight) == (1, -1.0), "the version that was being published"
    learner.calls.clear()
    await route.publish(2)
    assert learner.calls[:2] == ["open_transfer to 1", "send_weights"]


async def test_nccl_ends_engines_at_once_when_the_learner_fails_and_tells_its_failure() -> None:
    pool, learner = Pool(2), Learner()
    pool.workers_by_name["rollout-1"].calls.clear()
    workers = list(pool.workers_by_name.values())

    async def broken() -> str:
        raise RuntimeError("boom")

    learner.send_weights = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="boom"):
        await nccl(pool, learner).publish(3)
    assert pool.ended == ["the learner did not send all weights: boom"]
    assert [worker.calls for worker in workers] == [["pause"], ["pause"]], "none was asked to resume, which it cannot"


async def test_nccl_leaves_out_who_was_not_paused() -> None:
    """A worker that is lost in the pause is no member, nor is what has come in its place meanwhile."""
    pool, learner = Pool(2), Learner()
    answers = pool.every

    async def every(method: str, *arguments: Any) -> dict[str, Any]:
        found = await answers(method, *arguments)
        if method == "pause":
            pool.workers_by_name = {**pool.workers_by_name, "rollout-1": Worker()}
        return found

    pool.every = every  # type: ignore[method-assign]
    with pytest.raises(WeightMismatchError, match="rollout-1"):  # it has not loaded by itself in this test
        await nccl(pool, learner).publish(1)
    assert learner.calls[0] == "open_transfer to 1"


async def test_the_canary_catches_an_engine_that_got_nothing_by_nccl() -> None:
    pool, learner = Pool(2), Learner()
    route = nccl(pool, learner)
    await route.publish(1)
    learner.value = -4.0
    learner.engines = learner.engines[:1]
    with pytest.raises(WeightMismatchError, match="version 2 is not what rollout-1 holds"):
        await route.publish(2)


def test_metrics_leave_out_what_is_not_known() -> None:
    assert SyncReport(3, 1.0, 2.0, 0.5, 1e-6, True).metrics() == {
        "time/sync_export_s": 1.0,
        "time/sync_load_s": 2.0,
        "time/sync_verify_s": 0.5,
        "sync/canary_gap_max": 1e-6,
        "sync/weights_changed": 1.0,
    }
    assert set(SyncReport(3, 1.0, 2.0).metrics()) == {f"time/sync_{part}_s" for part in ("export", "load", "verify")}


@pytest.mark.parametrize("start", [0, 7])
@pytest.mark.parametrize("by_nccl", [False, True])
async def test_with_16_bits_old_weights_are_caught_by_what_equal_ones_gave(by_nccl: bool, start: int) -> None:
    """At the start of a run before anything is sent; of a run that goes on, by its first sync."""
    pool, learner, canary = Pool(2), Learner(), Canary((1, 2, 3), 0.5, learns=True)
    for worker in pool.workers_by_name.values():
        worker.weight = -1.002 if start == 0 else -3.0
    route = NcclRoute(learner, pool, 1, canary, FAST_S) if by_nccl else object_store(pool, learner, canary)  # type: ignore[arg-type]
    await route.publish(start)
    assert canary.mean_tolerance == pytest.approx(0.008 if start == 0 else 0.005)
    learner.value = -1.05
    await route.publish(start + 1)
    learner.value = -1.1
    for worker in pool.workers_by_name.values():
        worker.loads = False
    learner.engines = []
    with pytest.raises(WeightMismatchError, match=r"by 0.05 nats on average, more than the 0.00[58] that rounding"):
        await route.publish(start + 2)
