"""Checkpoints of all learner ranks: copied at once, written and committed while training goes on."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from actors.faults import WorkerHung
from actors.pools.loss import failure, reply, unwrapped
from actors.pools.ranks import Ranks
from learner.storage.folders import prune
from learner.storage.manifest import DiskFullError, FileFacts, Guard, SnapshotFacts, begin, checkpoint_step, commit

IO_GROUP = "io"
"""Concurrency group of a learner rank in which it writes; its actor has to be created with it (one thread)."""


class CheckpointSaver:
    """Saves one checkpoint at a time.

    Args:
        ranks: actors of :class:`actors.workers.learner_worker.LearnerWorker` with the concurrency group ``IO_GROUP``.
        checkpoints: folder of the run's checkpoints; all ranks and this process see it.
        keep: newest checkpoints that stay.
        timeout_s: longest time that copying, and that writing, may take.
        guard: inside of it a checkpoint becomes visible, and older ones vanish; it raises if this process may not do
            so any more, which then is what :meth:`finish` raises.
    """

    def __init__(
        self, ranks: Ranks, checkpoints: Path, keep: int, timeout_s: float, guard: Guard = nullcontext
    ) -> None:
        self._ranks, self._checkpoints, self._guard = ranks, checkpoints, guard
        self._keep, self._timeout_s = keep, timeout_s
        self._begun: tuple[Path, list[SnapshotFacts]] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._complete: Path | None = None

    @property
    def saving(self) -> bool:
        """Whether a save was begun that :meth:`finish` has not ended yet."""
        return self._begun is not None

    @property
    def is_written(self) -> bool:
        """Whether a save was begun and :meth:`finish` has nothing to wait for."""
        return self._writing is not None and self._writing.done()

    async def begin(self, step: int, controller_state: dict[str, Any]) -> None:
        """Copy the state of all ranks into their memory, and let them write it to ``checkpoints/step-N``.

        A save that is still going on is finished first. A step that this object has saved last is not saved again: its
        weights are the same.

        Args:
            controller_state: JSON that is kept with the checkpoint.

        Raises:
            WorkerError: a rank failed.
            Exception: whatever :meth:`finish` raises.
        """
        if self.saving:
            await self.finish()
        final = self._checkpoints / f"step-{step}"
        facts: list[SnapshotFacts] = []
        if final != self._complete:
            facts = await self._ranks.call("take_snapshot", controller_state, timeout_s=self._timeout_s)
        self._begun = final, facts
        self._writing = asyncio.create_task(self._write(final, facts))

    async def finish(self) -> str:
        """Wait until the checkpoint is complete and the oldest beyond those kept are deleted; returns its path.

        Raises:
            DiskFullError: there was no space. The copies are kept, and the next call writes them again.
            WorkerError: a rank failed or took too long.
            RuntimeError: no save was begun.
        """
        if self._begun is None:
            raise RuntimeError("finish_save without begin_save")
        final, facts = self._begun
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(final, facts))
        try:
            await asyncio.shield(self._writing)
        except DiskFullError:
            self._writing = None
            raise
        except Exception:
            self._writing = self._begun = None
            raise
        self._writing = self._begun = None
        self._complete = final
        return str(final)

    async def _write(self, final: Path, facts: list[SnapshotFacts]) -> None:
        """Everything after the copies. What was written of a checkpoint that fails is removed."""
        if final == self._complete:
            return
        num_bytes = sum(rank.num_bytes for rank in facts)
        partial = await asyncio.to_thread(begin, final, num_bytes)
        try:
            files = await self._write_ranks(partial)
            about = {"num_ranks": facts[0].num_ranks, "zero_stage": facts[0].zero_stage}
            await asyncio.to_thread(
                commit, partial, final, {"step": checkpoint_step(final), **about}, files, self._guard
            )
        except Exception as error:
            await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)
            if isinstance(error, DiskFullError):  # a rank knows neither the name nor the size of the whole
                raise DiskFullError(str(final), error.reason, num_bytes) from error
            raise
        await asyncio.to_thread(prune, self._checkpoints, self._keep, self._guard)

    async def _write_ranks(self, partial: Path) -> dict[str, FileFacts]:
        """Let every rank write, and wait for all of them even where one fails, so that none writes any more."""

        async def write(actor: Any, name: str) -> dict[str, FileFacts]:
            call = actor.write_snapshot.options(concurrency_group=IO_GROUP).remote(str(partial))
            try:
                files: dict[str, FileFacts] = await reply(call, name, "write_snapshot", self._timeout_s)
            except WorkerHung as hung:
                raise WorkerHung(name, hung.method, f"not written within {self._timeout_s:g} s") from hung
            return files

        names = self._ranks.names
        results = await asyncio.gather(*map(write, self._ranks.actors, names), return_exceptions=True)
        failures: list[Exception] = []
        files: dict[str, FileFacts] = {}
        for name, result in zip(names, results, strict=True):
            if isinstance(result, BaseException):
                failures.append(_disk_full(result) or failure(name, "write_snapshot", result))
            else:
                files |= result
        if failures:  # another failure comes first: waiting for space would not help
            raise min(failures, key=lambda error: isinstance(error, DiskFullError))
        return files


def _disk_full(error: BaseException) -> DiskFullError | None:
    """The rank's own error, which knows what was to be written, if that is what an error came from."""
    cause = error if isinstance(error, DiskFullError) else unwrapped(error.__cause__ or error)
    return cause if isinstance(cause, DiskFullError) else None
