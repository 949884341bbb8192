"""Runs what is left of a study: cells are dealt to slots, and each one's result is written before the next begins."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.config.processes.search_path import workers_path
from cluster.study.cells import PlannedCell
from cluster.study.config import StudyConfig, seconds_in_words
from cluster.study.results import CellResult, Point, ResultFile, read_curve, require_same_study
from rollout.component import UserError
from rollout.component.mistakes import NotWritable

MAX_SLOTS = 8
"""Slots that are started unless the study says otherwise: each is a process of about a GiB."""
REMOVED = ("checkpoints", "trajectories", "stacks", "ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm")
"""What goes from a cell's folder when it is done and only its metrics are kept."""
Say = Callable[[str], None]


class CellFailed(Exception):
    """A cell did not come to its end; the message says why."""


class Queue:
    """Cells that have not been begun.

    Args:
        cells: in the order in which they are to be done.
    """

    def __init__(self, cells: Sequence[PlannedCell]) -> None:
        self._cells = list(cells)

    def __len__(self) -> int:
        return len(self._cells)

    def take(self, engine: str | None) -> PlannedCell | None:
        """The next cell that can use ``engine``, else the next one: to start another engine costs as much as a run."""
        suitable = (index for index, one in enumerate(self._cells) if one.engine == engine)
        return self._cells.pop(next(suitable, 0)) if self._cells else None


class SlotProcess:
    """The driver's side of :mod:`cluster.study.slot`: one process at a time, started when it is needed.

    Args:
        log: takes what the process prints.
        processes: see :class:`StudyConfig`.
    """

    def __init__(self, log: Path, processes: str) -> None:
        self._log, self._processes = log, processes
        self._process: asyncio.subprocess.Process | None = None
        self.engine: str | None = None

    async def run(self, planned: PlannedCell, timeout_s: float) -> float | None:
        """Run a cell in the process; returns the seconds of its processor that it took, if it was all in there.

        Raises:
            CellFailed: it failed, took too long, or the process died. The process is ended: what it holds is unknown.
        """
        if planned.engine != self.engine:
            await self.end()
        if self._process is None:
            self._process, self.engine = await self._start(), planned.engine
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._ask(self._process, planned)
        except TimeoutError:
            answer = {"error": f"not done within {timeout_s:g} s (cell_timeout_s)"}
        if answer["error"] is not None:
            await self.end()
            raise CellFailed(answer["error"])
        cpu_s: float | None = answer["cpu_s"]
        return cpu_s

    async def _start(self) -> asyncio.subprocess.Process:
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # or a `learner.py` in the user's folder would be taken for the package
                "-m",
                "cluster.study.slot",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, "PYTHONPATH": workers_path()},
                start_new_session=True,  # so that Ctrl-C does not strike it: the driver ends it
            )

    async def _ask(self, process: asyncio.subprocess.Process, planned: PlannedCell) -> dict[str, Any]:
        """What the process answers."""
        assert process.stdin is not None and process.stdout is not None
        request: dict[str, Any] = {
            "processes": self._processes,
            "config": planned.config.model_dump(mode="json"),
            "folder": str(planned.config.run_dir.resolve()),
        }
        with suppress(ConnectionError):  # it has died, and the end of its output says so
            process.stdin.write(json.dumps(request).encode() + b"\n")
            await process.stdin.drain()
        line = await process.stdout.readline()
        if not line:
            return {"error": f"its process ended with status {await process.wait()}; see {self._log}"}
        return dict(json.loads(line))

    async def end(self) -> None:
        """End the process, whatever it is doing."""
        process, self._process, self.engine = self._process, None, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()  # a Ray of its own is cleared up after it, as after any driver that was killed
            await process.wait()


class StudyRunner:
    """Runs the cells of a study that have no result yet.

    Args:
        study: the study.
        cells: all of its cells.
        say: told of every cell that is done.
        retry: run cells that failed once more.

    Raises:
        UserError: cells.jsonl has a result of another configuration, or is not one.
    """

    def __init__(self, study: StudyConfig, cells: Sequence[PlannedCell], say: Say, retry: bool = False) -> None:
        self._study, self._say = study, say
        self._folder = Path(study.output)
        require_same_study(self._folder, cells)
        self._file = ResultFile(self._folder)
        if retry:
            self._file.forget([cell for cell, result in self._file.results.items() if result.error is not None])
        self._queue = Queue([one for one in cells if one.cell not in self._file.results])
        self._num_cells, self._num_left = len(cells), len(self._queue)
        self._num_done = self.num_failed = 0
        self._began = time.monotonic()

    async def run(self) -> None:
        """Run until nothing is left. A cell that fails is recorded, and the others go on."""
        done = self._num_cells - self._num_left
        self._say(f"{self._num_cells} cells, {done} of them done already")
        slots = min(self._num_slots(), len(self._queue))
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(slots):
                    group.create_task(self._serve(SlotProcess(self._log(index), self._study.processes)))
        except BaseExceptionGroup as group:  # one of a slot ends them all
            raise group.exceptions[0] from None
        finally:
            self._file.close()

    def _num_slots(self) -> int:
        by_default = min(len(os.sched_getaffinity(0)), MAX_SLOTS) if self._study.processes == "shared" else 1
        return self._study.num_slots or by_default

    def _log(self, index: int) -> Path:
        return self._folder.resolve() / "logs" / f"slot-{index}.log"

    async def _serve(self, slot: SlotProcess) -> None:
        try:
            while (planned := self._queue.take(slot.engine)) is not None:
                result = await self._run_cell(slot, planned)
                try:
                    self._file.add(result)
                except OSError as error:
                    raise NotWritable(f"{self._folder}: cells.jsonl cannot be written: {error.strerror}") from error
                self._tell(result)
        finally:
            await slot.end()

    async def _run_cell(self, slot: SlotProcess, planned: PlannedCell) -> CellResult:
        folder = planned.config.run_dir
        shutil.rmtree(folder, ignore_errors=True)  # of an attempt that was killed
        begin = time.monotonic()
        reason: str | None = None
        curve: tuple[Point, ...] = ()
        cpu_s = None
        try:
            cpu_s = await slot.run(planned, self._study.cell_timeout_s)
        except CellFailed as failed:
            reason = str(failed)
        wall_s = time.monotonic() - begin
        try:
            curve = read_curve(folder, planned, self._study.metrics)
        except UserError as error:  # a cell that failed may have written nothing
            reason = reason or str(error)
        if self._study.keep == "metrics":
            _remove(folder)
        return CellResult(
            cell=planned.cell,
            fingerprint=planned.fingerprint,
            error=reason,
            wall_s=round(wall_s, 3),
            cpu_s=cpu_s,
            curve=curve,
        )

    def _tell(self, result: CellResult) -> None:
        self._num_done += 1
        self.num_failed += result.error is not None
        pace = (time.monotonic() - self._began) / self._num_done
        rest = self._num_left - self._num_done
        left = f"{rest} left, about {seconds_in_words(rest * pace)}" if rest else "the last"
        shown = f"failed: {result.error}" if result.error is not None else _last(result, self._study.metrics[0])
        self._say(f"{result.cell.name}: {shown} ({result.wall_s:.0f} s; {left})")


def _last(result: CellResult, metric: str) -> str:
    value = result.values(metric)[-1] if result.curve else float("nan")
    return f"{metric} {value:.3f}"


def _remove(folder: Path) -> None:
    for name in REMOVED:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def run_study(study: StudyConfig, cells: Sequence[PlannedCell], say: Say, retry: bool = False) -> int:
    """Run what is left of a study; returns how many cells failed just now."""
    runner = StudyRunner(study, cells, say, retry)
    asyncio.run(runner.run())
    return runner.num_failed
