"""What the sinks for trackers have in common: a thread of their own, so that no tracker holds up or ends a run."""

from __future__ import annotations

import importlib.util
import math
import queue
import threading
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import Field

from actors.recording.event_log import EventLog
from actors.recording.sinks import FurtherSink, read_metrics
from rollout.component import StrictModel
from rollout.component.mistakes import PackageMissing

MAX_WAITING = 10_000
"""Steps that wait for a tracker that does not keep up; what comes then is left out of the tracker, and told."""

Step = tuple[int, dict[str, float]]


class TrackerSink(FurtherSink):
    """Writes finite numbers to a tracker under the keys of ``metrics.jsonl``, and the configuration once.

    A tracker's run cannot be rewound. A run that goes on from a checkpoint is therefore a new run of the tracker, which
    begins with the steps of ``metrics.jsonl`` that stay. An error of the tracker turns it off and is told in
    ``events.jsonl``; the run goes on, and ``metrics.jsonl`` has everything.
    """

    package: ClassVar[str]
    """What is imported."""
    extra: ClassVar[str]
    """Of dvpo, which installs it."""

    class Config(StrictModel):
        """Options that all of them have."""

        project: str = Field("dvpo", min_length=1, description="Project or experiment that the run is put into.")
        close_timeout_s: float = Field(
            30.0, gt=0.0, description="Longest wait at the end for what has not been written yet, in seconds."
        )

    config: TrackerSink.Config

    def __init__(self, config: TrackerSink.Config) -> None:
        super().__init__(config)
        if importlib.util.find_spec(self.package) is None:
            raise PackageMissing(f"needs the package {self.package}: pip install 'dvpo[{self.extra}]'")

    def open(self, folder: Path, last_valid_step: int | None) -> None:
        """See :class:`FurtherSink`."""
        self._folder, self._last_valid_step = folder, last_valid_step
        self._events = EventLog(folder / "events.jsonl")
        self._queue: queue.Queue[Step | None] = queue.Queue(MAX_WAITING)
        self._num_left_out = 0
        self._failed = False
        self._thread: threading.Thread | None = None

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Hand a step to the tracker's thread."""
        if self._failed:
            return
        if self._thread is None:
            kept = self._steps_that_stay()
            self._thread = threading.Thread(target=self._serve, args=(kept,), name=self.package, daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait((step, _finite(metrics)))
        except queue.Full:
            self._num_left_out += 1

    def close(self) -> None:
        """Write what waits, as far as there is time for it."""
        thread = self._thread
        if thread is None:
            return
        self._thread = None
        try:
            self._queue.put(None, timeout=self.config.close_timeout_s)
        except queue.Full:
            pass
        else:
            thread.join(self.config.close_timeout_s)
        if thread.is_alive():
            self._tell(f"has not written everything in {self.config.close_timeout_s:g} s")
        if self._num_left_out:
            self._tell(f"did not keep up: {self._num_left_out} steps are left out of it")

    def _steps_that_stay(self) -> list[Step]:
        path = self._folder / "metrics.jsonl"
        if self._last_valid_step is None or self._last_valid_step < 0 or not path.exists():
            return []
        lines = [line for line in read_metrics(path) if line["step"] <= self._last_valid_step]
        return [(int(line.pop("step")), _finite({**line, "time": math.nan})) for line in lines]

    def _serve(self, kept: list[Step]) -> None:
        try:
            settings = self._settings()
            self.begin(str(settings.get("name", self._folder.name)), settings, self._folder)
            for step, metrics in self._all_steps(kept):
                self.log(step, metrics)
            self.end()
        except Exception as error:  # of whatever library: a tracker must not end a run
            self._failed = True
            self._tell(f"is turned off: {type(error).__name__}: {' '.join(str(error).split())[:300]}")

    def _all_steps(self, kept: list[Step]) -> Iterator[Step]:
        yield from kept
        while (item := self._queue.get()) is not None:
            yield item

    def _settings(self) -> dict[str, Any]:
        path = self._folder / "config.yaml"
        found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
        return found if isinstance(found, dict) else {}

    def _tell(self, text: str) -> None:
        self._events.write("tracker", 0, f"{self.package} {text}", level="warning")

    @abstractmethod
    def begin(self, name: str, settings: dict[str, Any], folder: Path) -> None:
        """Start a run of the tracker; like the two below called in the thread."""

    @abstractmethod
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record finite numbers of one step."""

    @abstractmethod
    def end(self) -> None:
        """Finish the tracker's run."""


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {key: float(value) for key, value in metrics.items() if math.isfinite(value)}
