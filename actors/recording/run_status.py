"""What a run is doing now: open stages, workers and when something last got done; as a file and as lines for people."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.recording.safe_text import safe

WRITE_EVERY_S = 1.0
"""Longest time for which what a worker did last waits to be written."""
MAX_SHOWN_IDS = 20
Ids = Sequence[str] | Callable[[], Sequence[str]]


@dataclass(slots=True)
class _Stage:
    name: str
    since: float
    ids: Ids

    @property
    def current_ids(self) -> list[str]:
        """What it works on now."""
        return list(self.ids() if callable(self.ids) else self.ids)


@dataclass(slots=True)
class _Worker:
    pid: int = 0
    host: str = ""
    last_event: str = ""
    last_event_at: float | None = None


class RunStatus:
    """Kept by the controller; one event loop, so no locks.

    The file holds ``{"time", "step", "last_progress", "stages": [{"name", "since", "ids"}], "workers": {name: {"pid",
    "host", "last_event", "last_event_time"}}, "pid"}``, with times in seconds since 1970. It is replaced in one go: a
    reader never sees half of it.

    Args:
        path: the file, or None for none.
        now: clock in seconds that never goes back.
        may_write: asked before the file is replaced: not to be, by a process that has lost the run to another one.
    """

    def __init__(
        self,
        path: Path | None,
        now: Callable[[], float] = time.monotonic,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        self._path, self._may_write = path, may_write
        self._now = now
        self._step = 0
        self._stages: list[_Stage] = []
        self._workers: dict[str, _Worker] = {}
        self._progress_at = now()
        self._written_at = float("-inf")
        self._write_error = ""

    @property
    def step(self) -> int:
        """Updates done."""
        return self._step

    @step.setter
    def step(self, value: int) -> None:
        self._step = value
        self._write()

    @contextmanager
    def stage(self, name: str, ids: Ids = ()) -> Iterator[None]:
        """Mark a stage as open inside the block; stages may be nested or open side by side. Leaving one is progress.

        Args:
            ids: what the stage works on, such as prompts; a function if that changes meanwhile.
        """
        stage = _Stage(name, self._now(), ids)
        self._stages.append(stage)
        self._write()
        try:
            yield
        finally:
            # By identity: stages of the same name may be open side by side.
            self._stages = [other for other in self._stages if other is not stage]
            self.progress()
            self._write()

    def set_worker(self, name: str, pid: int, host: str) -> None:
        """Say which process a worker is; for a replacement too. What its predecessor did last is forgotten."""
        self._workers[name] = _Worker(pid, host)
        self._write()

    def forget(self, worker: str) -> None:
        """A worker has left."""
        self._workers.pop(worker, None)
        self._write()

    def note(self, worker: str, text: str) -> None:
        """Remember the last event of a worker."""
        entry = self._workers.setdefault(worker, _Worker())
        entry.last_event, entry.last_event_at = safe(text), self._now()
        self._write_soon()

    def progress(self) -> None:
        """Something got done: a trajectory was scored, a stage ended."""
        self._progress_at = self._now()
        self._write_soon()

    def idle_s(self) -> float:
        """Seconds since something last got done."""
        return self._now() - self._progress_at

    def describe(self) -> list[str]:
        """The stages with their seconds and ids, and the workers with their last event, as lines for people."""
        now = self._now()
        lines = [f"nothing got done for {self.idle_s():.0f} s; {self._step} steps are done"]
        for stage in self._stages:
            lines.append(f"stage {stage.name} for {now - stage.since:.0f} s{_shown(stage.current_ids)}")
        if not self._stages:
            lines.append("no stage is open")
        for name, worker in sorted(self._workers.items()):
            last = "no event yet"
            if worker.last_event_at is not None:
                last = f"last event {now - worker.last_event_at:.0f} s ago: {worker.last_event}"
            process = f" (pid {worker.pid} on {worker.host})" if worker.pid else ""
            lines.append(f"{name}{process}: {last}")
        if self._write_error:
            lines.append(f"{self._path} is out of date: {self._write_error}")
        return lines

    def _write_soon(self) -> None:
        if self._now() - self._written_at >= WRITE_EVERY_S:
            self._write()

    def _write(self) -> None:
        """Replace the file. A full disk must not end a run for the sake of it; :meth:`describe` tells."""
        self._written_at = self._now()
        if self._path is None or not self._may_write():
            return
        # With the process's id: a controller that was taken for dead may still be writing its own.
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            temporary.write_text(json.dumps(self._record()), encoding="utf-8")
            os.replace(temporary, self._path)
            self._write_error = ""
        except OSError as error:
            self._write_error = f"{type(error).__name__}: {error}"
            with suppress(OSError):
                temporary.unlink(missing_ok=True)  # nobody else would ever remove it

    def _record(self) -> dict[str, Any]:
        # Kept on a clock that never goes back, written as times of day.
        to_epoch = time.time() - self._now()
        return {
            "time": time.time(),
            "step": self._step,
            "last_progress": self._progress_at + to_epoch,
            "stages": [{"name": s.name, "since": s.since + to_epoch, "ids": s.current_ids} for s in self._stages],
            "workers": {
                name: {
                    "pid": worker.pid,
                    "host": worker.host,
                    "last_event": worker.last_event,
                    "last_event_time": None if worker.last_event_at is None else worker.last_event_at + to_epoch,
                }
                for name, worker in self._workers.items()
            },
            "pid": os.getpid(),
        }


def _shown(ids: Sequence[str]) -> str:
    """The first ids, and how many more there are."""
    more = f" and {len(ids) - MAX_SHOWN_IDS} more" if len(ids) > MAX_SHOWN_IDS else ""
    return f": {', '.join(ids[:MAX_SHOWN_IDS])}{more}" if ids else ""
