"""Where metrics go: metrics.jsonl always, TensorBoard when asked.

A sink is made in one process and used in another, so it opens its file on the first write and can be pickled before.
"""

from __future__ import annotations

import json
import math
import os
import socket
import struct
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from actors.recording.append_file import AppendFile
from actors.recording.trackers import TRACKERS
from rollout.component import Component, ComponentSpec, build
from rollout.component.mistakes import BadLine, Unreadable


class Sink(Protocol):
    """Takes the metrics of each step."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of one step: key ``area/quantity`` to value.

        Raises:
            OSError: they cannot be written, all or none of them; the call can be repeated.
        """
        ...

    def close(self) -> None:
        """Write what is pending and release the file. Closing twice is allowed."""
        ...


class FurtherSink(Component):
    """A tracker, or a sink of the user's own, named in ``logging.sinks``. It runs in the controller's process; do not
    block there.
    """

    def open(self, folder: Path, last_valid_step: int | None) -> None:
        """Called once, before the first :meth:`write`.

        Args:
            folder: of the run.
            last_valid_step: what was written of later steps is to be removed, because they will be taken again; -1:
                everything, None: nothing.
        """

    @abstractmethod
    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """See :class:`Sink`."""

    def close(self) -> None:
        """See :class:`Sink`."""


def further_sinks(specs: Sequence[ComponentSpec]) -> list[FurtherSink]:
    """Trackers and the user's own sinks, not opened yet.

    Raises:
        UserError: one cannot be imported, is no sink, or an option is wrong.
    """
    return [build(spec, TRACKERS, FurtherSink, f"logging.sinks.{index}") for index, spec in enumerate(specs)]


class JsonlSink:
    """One JSON object a line: ``step``, ``time`` (seconds since 1970) and the metrics.

    A value that is not finite becomes ``null``, since JSON has no NaN. Each line is on disk when :meth:`write` returns.

    Args:
        path: the file; lines are appended.
        resume_step: step of the checkpoint that the run goes on from; later lines in the file are removed, because
            these steps will be taken again. None keeps all.
    """

    def __init__(self, path: str | Path, resume_step: int | None = None) -> None:
        self.path = Path(path)
        self._resume_step = resume_step
        self._file: AppendFile | None = None

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line; see :class:`Sink`."""
        record = {"step": step, "time": round(time.time(), 3), **{k: _json_number(v) for k, v in metrics.items()}}
        if self._file is None:
            self._file = self._open()
        self._file.append(json.dumps(record, allow_nan=False).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> AppendFile:
        """The file at its end, without the lines after the step to resume from and without a half-written last line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            kept = [line for line in self.path.read_text(encoding="utf-8").splitlines() if self._is_kept(line)]
            # Written aside and put in place: a kill in between loses no line.
            partial = self.path.with_suffix(".partial")
            partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
            os.replace(partial, self.path)
        self._resume_step = None  # what is written from now on stays, should the file be opened again
        return AppendFile(self.path)

    def _is_kept(self, line: str) -> bool:
        """Whether the line is whole and not after the step to resume from."""
        try:
            step = json.loads(line)["step"]
        except (ValueError, TypeError, KeyError):
            return False
        return self._resume_step is None or step <= self._resume_step


class TensorBoardSink:
    """TensorBoard event files; values that are not finite are left out.

    Written here and not by a library's background thread, which a full disk would end: whoever then adds a point to
    its queue waits permanently.

    Args:
        folder: where the event files go.
        resume_step: see :class:`JsonlSink`; TensorBoard then hides events of later steps.
    """

    def __init__(self, folder: str | Path, resume_step: int | None = None) -> None:
        self.folder = Path(folder)
        self._resume_step = resume_step
        self._opening = b""
        self._file: AppendFile | None = None

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add one point to each curve; see :class:`Sink`."""
        from tensorboardX.proto.summary_pb2 import Summary  # here and below, since it loads torch if that is installed

        if self._file is None:
            name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
            self._opening, self._file = self._first_events(), AppendFile(self.folder / name)
        finite = {key: float(value) for key, value in metrics.items() if math.isfinite(value)}
        summary = Summary(value=[Summary.Value(tag=key, simple_value=value) for key, value in finite.items()])
        self._file.append(self._opening + _event(step=step, summary=summary))
        # Not before the write has succeeded: after a full disk it is repeated with the same opening.
        self._opening, self._resume_step = b"", None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _first_events(self) -> bytes:
        """What a file begins with; the start of a session hides what older files have from its step on."""
        from tensorboardX.proto.event_pb2 import SessionLog

        events = _event(file_version="brain.Event:2")
        if self._resume_step is None:
            return events
        return events + _event(step=self._resume_step + 1, session_log=SessionLog(status=SessionLog.START))


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """The lines of a metrics.jsonl, oldest first; ``null`` is read as NaN. A half-written last line is left out.

    Raises:
        UserError: no such file, or a line in the middle that is not a JSON object.
    """
    file = Path(path)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read: {error.strerror}") from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            records.append({key: math.nan if value is None else value for key, value in record.items()})
        except (ValueError, AttributeError) as error:
            if number == len(lines):
                break
            raise BadLine(f"{path}:{number}: not a JSON object") from error
    return records


def _json_number(value: float) -> float | int | None:
    """The value as JSON can hold it."""
    if isinstance(value, bool | int):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None


def _event(**values: object) -> bytes:
    """An event of this moment as a record of a TFRecord file: length, its checksum, the event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c

    event = Event(wall_time=time.time(), **values).SerializeToString()
    length = struct.pack("<Q", len(event))
    return b"".join([length, struct.pack("<I", masked_crc32c(length)), event, struct.pack("<I", masked_crc32c(event))])
