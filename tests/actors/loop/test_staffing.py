"""How many rollout workers are wanted, and what is said and done while they have no room."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from actors.faults import NoRoom
from actors.loop import staffing
from actors.loop.staffing import Staffing
from actors.recording.run_status import RunStatus


class Pool:
    """Knows what it was told."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []
        self.waiting: list[str] = []
        self.lacks_room = False
        self.workers_by_name = {"rollout-0": None}
        self.failure: Exception | None = None

    def resize(self, num_wanted: int, num_needed: int) -> None:
        self.sizes.append((num_wanted, num_needed))

    def fail(self, error: Exception) -> None:
        self.failure, self.lacks_room = error, False


class World:
    """A run of which two workers are needed and four wanted, and a clock that goes with each look at it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, timeout_s: float = 100.0) -> None:
        monkeypatch.setattr(staffing, "LOOK_S", 0.0)
        self.pool, self.clock = Pool(), 0.0
        self.order: int | None = None
        self.lines: list[str] = []
        self.status = RunStatus(None)
        self.stages: list[bool] = []
        pool: Any = self.pool
        self.staffing = Staffing(
            pool=pool,
            fewest=2,
            most=4,
            order=self.read,
            lack=self.lack,
            status=self.status,
            tell=self.tell,
            timeout_s=timeout_s,
            now=self.now,
        )

    def read(self) -> int | None:
        self.clock += 5.0
        self.stages.append("stage wait for room" in " ".join(self.status.describe()))
        return self.order

    def lack(self, names: Sequence[str]) -> str:
        return f"{len(names)} CPU"

    def tell(self, kind: str, step: int, text: str, level: str = "info", **details: Any) -> None:
        self.lines.append(f"{level} {text}")

    def now(self) -> float:
        return self.clock


async def test_the_number_told_by_hand_counts_until_it_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    running = asyncio.ensure_future(world.staffing.run())
    async with asyncio.timeout(10):
        for order, size in ((None, (4, 2)), (6, (6, 2)), (1, (1, 1)), (None, (4, 2))):
            world.order = order
            while not world.pool.sizes or world.pool.sizes[-1] != size:
                await asyncio.sleep(0)
    running.cancel()
    assert world.pool.sizes == [(4, 2), (6, 2), (1, 1), (4, 2)], "once each"
    assert world.lines[0] == "info rollout workers wanted: 6, as told by dvpo scale"
    assert world.lines[-1] == "info rollout workers wanted: 4, as configured"


async def test_what_is_not_needed_and_has_no_room_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    world.pool.waiting = ["rollout-2", "rollout-3"]
    for _ in range(20):
        await world.staffing.look()
    assert world.lines == [
        "info no room for rollout-2, rollout-3: 1 serves, the run needs 2; 2 CPU; they join when a host has some"
    ]
    world.pool.waiting = ["rollout-3"]
    for _ in range(20):
        await world.staffing.look()
    assert len(world.lines) == 2
    assert not any(world.stages), "the run does not wait for them"


async def test_what_is_needed_is_waited_for_and_that_is_no_standstill(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch)
    world.pool.waiting, world.pool.lacks_room = ["rollout-1"], True
    looking = asyncio.ensure_future(world.staffing.look())
    async with asyncio.timeout(10):
        while len(world.lines) < 3:
            await asyncio.sleep(0)
    world.pool.lacks_room = False
    await asyncio.wait_for(looking, 10)
    assert [line.partition(", for rollout-1: ")[0] for line in world.lines] == [
        "warning waiting for room, for 5 of at most 100 s",
        "warning waiting for room, for 35 of at most 100 s",
        "warning waiting for room, for 65 of at most 100 s",
    ]
    assert world.lines[0].endswith("for rollout-1: 1 serves, the run needs 2; 1 CPU")
    assert world.stages[0] is False and all(world.stages[1:]), "the state of the run says so"
    assert world.pool.failure is None


async def test_the_run_ends_when_it_has_waited_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, timeout_s=20.0)
    world.pool.waiting, world.pool.lacks_room = ["rollout-1"], True
    await asyncio.wait_for(world.staffing.look(), 10)
    assert isinstance(world.pool.failure, NoRoom)
    assert str(world.pool.failure) == (
        "no room in the cluster for 20 s (recovery.resource_timeout_s) for rollout-1: 1 serves, the run needs 2; "
        "1 CPU. Add a host, and go on with --resume"
    )
