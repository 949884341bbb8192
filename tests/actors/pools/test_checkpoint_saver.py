"""Order and failures of saving, on ranks that are made up; real ranks are in tests/integration."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from actors.faults import WorkerError, WorkerLost
from actors.ledger.errors import TakenOver
from actors.pools.checkpoint_saver import IO_GROUP, CheckpointSaver
from actors.pools.ranks import Ranks
from learner.storage.files import CheckpointFiles
from learner.storage.manifest import DiskFullError, FileFacts, SnapshotFacts, verify


class Method:
    """``rank.method.remote(...)`` and ``rank.method.options(...).remote(...)``."""

    def __init__(self, call: Callable[..., Awaitable[Any]]) -> None:
        self.call = call
        self.groups: list[str] = []

    def options(self, concurrency_group: str) -> Method:
        self.groups.append(concurrency_group)
        return self

    def remote(self, *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.ensure_future(self.call(*arguments))


class Rank:
    """Holds a number that training moves on, and writes the one it had when the snapshot was taken."""

    def __init__(self, rank: int, num_ranks: int) -> None:
        self.rank, self.num_ranks, self.value, self.num_bytes = rank, num_ranks, 0, 10
        self.copies = 0
        self.copy: int | None = None
        self.gate: asyncio.Event | None = None
        self.errors: list[Exception] = []
        self.take_snapshot, self.write_snapshot = Method(self._take), Method(self._write)

    async def _take(self, state: dict[str, Any]) -> SnapshotFacts:
        self.copy = self.value
        self.copies += 1
        return SnapshotFacts(self.num_bytes, self.num_ranks, 2)

    async def _write(self, folder: str) -> dict[str, FileFacts]:
        if self.errors:
            raise self.errors.pop(0)
        if self.gate is not None:
            await self.gate.wait()
        files = CheckpointFiles(Path(folder))
        files.text(f"rank-{self.rank}", str(self.copy))
        return files.facts


def parts(tmp_path: Path, keep: int = 2, timeout_s: float = 20.0) -> tuple[list[Rank], CheckpointSaver]:
    ranks = [Rank(rank, 2) for rank in range(2)]
    return ranks, CheckpointSaver(Ranks(ranks, "learner"), tmp_path, keep, timeout_s)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_what_is_written_is_what_was_copied(tmp_path: Path) -> None:
    async def run() -> None:
        ranks, saver = parts(tmp_path)
        ranks[1].gate = asyncio.Event()
        await saver.begin(5, {})
        assert saver.saving
        for rank in ranks:
            rank.value = 99  # training goes on
        await asyncio.sleep(0)
        assert not (tmp_path / "step-5").exists()
        ranks[1].gate.set()
        assert await saver.finish() == str(tmp_path / "step-5")
        assert not saver.saving
        manifest = verify(tmp_path / "step-5")
        assert (manifest["step"], manifest["num_ranks"], manifest["zero_stage"]) == (5, 2, 2)
        assert [(tmp_path / "step-5" / f"rank-{i}").read_text() for i in range(2)] == ["0", "0"]
        assert ranks[0].write_snapshot.groups == [IO_GROUP]
        with pytest.raises(RuntimeError, match="finish_save without begin_save"):
            await saver.finish()

    asyncio.run(run())


def test_one_at_a_time_and_the_oldest_go(tmp_path: Path) -> None:
    async def run() -> None:
        ranks, saver = parts(tmp_path)
        for step in (1, 2, 3):
            await saver.begin(step, {})  # finishes the one before
            assert step == 1 or (tmp_path / f"step-{step - 1}").exists()
        await saver.finish()
        assert names(tmp_path) == ["step-2", "step-3"]
        copies = ranks[0].copies
        await saver.begin(3, {})  # as at the end of a run: it is there already
        assert await saver.finish() == str(tmp_path / "step-3")
        assert ranks[0].copies == copies

    asyncio.run(run())


def test_a_full_disk_keeps_the_copy_for_the_next_try(tmp_path: Path) -> None:
    async def run() -> None:
        ranks, saver = parts(tmp_path)
        ranks[1].errors = [DiskFullError("x", "No space left on device")]
        ranks[0].gate = asyncio.Event()
        await saver.begin(4, {})
        ranks[0].value = ranks[1].value = 99
        ending = asyncio.ensure_future(saver.finish())
        done, _ = await asyncio.wait([ending], timeout=0.2)
        assert not done, "a rank is still writing"
        assert [name for name in names(tmp_path) if name.endswith(".partial")]
        ranks[0].gate.set()
        with pytest.raises(DiskFullError, match="step-4: No space left") as caught:
            await ending
        assert caught.value.needed == 20
        assert names(tmp_path) == []
        assert saver.saving
        assert await saver.finish() == str(tmp_path / "step-4")
        assert (tmp_path / "step-4" / "rank-1").read_text() == "0"
        assert ranks[0].copies == 1

    asyncio.run(run())


def test_too_little_space_is_seen_before_anything_is_written(tmp_path: Path) -> None:
    async def run() -> None:
        ranks, saver = parts(tmp_path)
        ranks[0].num_bytes = 1 << 60
        await saver.begin(1, {})
        with pytest.raises(DiskFullError, match=r"step-1: it needs 1,099,511,627,776\.0 MiB, .* MiB are free"):
            await saver.finish()
        assert names(tmp_path) == [] and ranks[1].write_snapshot.groups == []

    asyncio.run(run())


@pytest.mark.parametrize("timeout_s", [20.0, 0.1])
def test_other_failures_end_the_save(timeout_s: float, tmp_path: Path) -> None:
    async def run() -> None:
        ranks, saver = parts(tmp_path, timeout_s=timeout_s)
        if timeout_s > 1:
            ranks[0].errors = [DiskFullError("x", "full")]
            ranks[1].errors = [OSError(5, "Input/output error")]  # waiting for space would not help
        else:
            ranks[1].gate = asyncio.Event()
        await saver.begin(1, {})
        reason = r"OSError: \[Errno 5\] Input/output error" if timeout_s > 1 else r"not written within 0\.1 s"
        with pytest.raises(WorkerError, match=f"learner-1 failed in write_snapshot: {reason}") as caught:
            await saver.finish()
        assert isinstance(caught.value, WorkerLost) == (timeout_s < 1)
        assert not saver.saving
        assert names(tmp_path) == []

    asyncio.run(run())


def test_who_waits_may_give_up(tmp_path: Path) -> None:
    async def run() -> None:
        ranks, saver = parts(tmp_path)
        ranks[0].gate = asyncio.Event()
        await saver.begin(1, {})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(saver.finish(), 0.05)
        assert saver.saving
        ranks[0].gate.set()
        assert await saver.finish() == str(tmp_path / "step-1")

    asyncio.run(run())


def test_a_process_that_has_lost_the_run_adds_and_deletes_no_checkpoint(tmp_path: Path) -> None:
    lost = False

    @contextmanager
    def guard() -> Iterator[None]:
        if lost:
            raise TakenOver("ledger")
        yield

    async def run() -> None:
        nonlocal lost
        ranks, _ = parts(tmp_path)
        saver = CheckpointSaver(Ranks(ranks, "learner"), tmp_path, 1, 20.0, guard)
        await saver.begin(1, {})
        await saver.finish()
        lost = True
        await saver.begin(2, {})
        with pytest.raises(TakenOver):
            await saver.finish()
        assert names(tmp_path) == ["step-1"]
        lost = False
        await saver.begin(1, {})
        await saver.finish()
        (tmp_path / "step-1").rename(tmp_path / "step-0")
        await saver.begin(3, {})
        await saver.finish()
        assert names(tmp_path) == ["step-3"], "as soon as it may, it does"

    asyncio.run(run())
