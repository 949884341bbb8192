"""How long and how often a full disk is waited for; the clock is the test's own."""

from __future__ import annotations

import asyncio
import errno
import selectors
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from actors.recording.disk_space import LONGEST_PAUSE_S, DiskSpace
from rollout.component import UserError
from tests.actors.loop.test_controller import Run

FULL = OSError(errno.ENOSPC, "No space left on device")


class FakeClockLoop(asyncio.SelectorEventLoop):
    """An event loop in which sleeping takes no time: its clock jumps to where the next timer is."""

    def __init__(self) -> None:
        loop = self
        self.now = 0.0

        class Selector(selectors.SelectSelector):
            def select(self, timeout: float | None = None) -> Any:
                loop.now += timeout or 0.0
                return super().select(0)

        super().__init__(Selector())

    def time(self) -> float:
        return self.now


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=FakeClockLoop) as runner:
        return runner.run(coroutine)


class Disk:
    """Writes fail until ``free_at`` seconds; remembers when each was tried."""

    def __init__(self, free_at: float, then: Exception | None = None) -> None:
        self.free_at, self.then = free_at, then
        self.tried: list[float] = []
        self.told: list[str] = []
        self.num_signs = 0

    def write(self) -> str:
        now = asyncio.get_running_loop().time()
        self.tried.append(now)
        if now < self.free_at:
            raise FULL
        if self.then is not None:
            raise self.then
        return "written"

    def sign(self) -> None:
        self.num_signs += 1

    def space(self, timeout_s: float = 100.0) -> DiskSpace:
        return DiskSpace(timeout_s, self.told.append, self.sign)


def test_where_there_is_space_nothing_is_told() -> None:
    disk = Disk(free_at=0.0)
    assert run(disk.space().write(disk.write, "metrics")) == "written"
    assert (disk.tried, disk.told, disk.num_signs) == ([0.0], [], 0)


def test_pauses_grow_to_a_limit_and_each_attempt_is_a_sign_of_life() -> None:
    disk = Disk(free_at=30.0)
    assert run(disk.space().write(disk.write, "metrics")) == "written"
    assert disk.tried == [0.0, 1.0, 3.0, 7.0, 15.0, 25.0, 35.0]
    assert LONGEST_PAUSE_S == 10.0
    assert disk.num_signs == 6
    assert disk.told == [
        "the disk is full ([Errno 28] No space left on device); training pauses, metrics is tried again for 100 s",
        "there is space again: metrics done",
    ]


def test_the_limit_ends_it_with_one_clear_message() -> None:
    disk = Disk(free_at=1e9)
    space = disk.space(timeout_s=5.0)
    with pytest.raises(UserError) as failure:
        run(space.write(disk.write, "the ledger"))
    assert disk.tried == [0.0, 1.0, 3.0, 5.0]
    assert str(failure.value) == (
        "the disk has been full for 5 s (recovery.disk_full_timeout_s) and the ledger cannot be written: [Errno 28] No "
        "space left on device. Make space and go on with --resume; the checkpoints are intact [disk-full]"
    )
    assert len(disk.told) == 1
    assert not space.is_waited_for


def test_no_time_to_wait_means_one_more_attempt() -> None:
    disk = Disk(free_at=1e9)
    with pytest.raises(UserError, match="full for 0 s"):
        run(disk.space(timeout_s=0.0).write(disk.write, "metrics"))
    assert disk.tried == [0.0, 0.0]


@pytest.mark.parametrize("free_at", [0.0, 2.0])
def test_another_failure_is_raised_as_it_is(free_at: float) -> None:
    disk = Disk(free_at, then=ValueError("a defect"))
    space = disk.space()
    with pytest.raises(ValueError, match="a defect"):
        run(space.write(disk.write, "metrics"))
    assert not space.is_waited_for


def test_several_that_wait_are_told_of_once() -> None:
    disk = Disk(free_at=4.0)

    async def three() -> list[bool]:
        space = disk.space()
        waiting = asyncio.gather(*(space.write(disk.write, f"file {i}") for i in range(3)))
        states = [space.is_waited_for]
        await asyncio.sleep(2.0)
        states.append(space.is_waited_for)
        assert await waiting == ["written"] * 3
        return [*states, space.is_waited_for]

    assert run(three()) == [False, True, False]
    assert [text.partition(":")[0].partition(" (")[0] for text in disk.told] == [
        "the disk is full",
        "there is space again",
    ]


async def test_waiting_for_space_is_not_taken_for_a_stall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger's disk is full for longer than a batch may take: the controller goes on waiting."""
    controlled = Run(tmp_path, num_steps=2)
    ledger, full_until = controlled.ledger, asyncio.get_running_loop().time() + 0.9
    admit = ledger.admit

    def admit_when_free(*arguments: Any) -> None:
        if asyncio.get_running_loop().time() < full_until:
            raise FULL
        admit(*arguments)

    monkeypatch.setattr(ledger, "admit", admit_when_free)
    controlled.controller._step_timeout_s = 0.3
    assert await controlled.controller.run() == "step-2"
    told = [text for kind, text in controlled.told if kind == "disk"]
    assert (
        len(told) == 2 and told[0].startswith("the disk is full") and told[1] == "there is space again: the ledger done"
    )
