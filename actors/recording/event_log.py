"""events.jsonl: each noteworthy thing that happens in a run is one line of JSON."""

from __future__ import annotations

import json
import os
import time
from collections import deque
from pathlib import Path
from typing import Any, Literal

from actors.recording.safe_text import safe, safe_value
from learner.storage.disk_full import is_disk_full

Level = Literal["info", "warning", "error"]
MAX_WAITING = 1000
"""Lines that wait for space; the oldest go first."""
KEYS = ("time", "step", "kind", "level", "text")


class EventLog:
    """Appends lines; several processes may write to the same file, since each line is one write to its end.

    A line for which the disk has no space waits, and is written before the next one.

    Args:
        path: the file; it is made with its first line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING)

    def write(self, kind: str, step: int, text: str, level: Level = "info", **details: Any) -> None:
        """Append one line; texts are written without control characters and secrets.

        Args:
            kind: what sort of thing happened, one word.
            step: updates done when it did.
            text: for people, one sentence.
            details: further keys of the line; what JSON does not know is written as text.

        Raises:
            ValueError: a detail has the name of one of the line's own keys.
            OSError: the line cannot be written, for another reason than a full disk.
        """
        if taken := set(details) & set(KEYS):
            raise ValueError(f"details may not be called {', '.join(sorted(taken))}")
        record = {"time": time.time(), "step": step, "kind": kind, "level": level, "text": safe(text)} | safe_value(
            details
        )
        self._waiting.append((json.dumps(record, ensure_ascii=False, default=str) + "\n").encode("utf-8"))
        # Oldest first, so that the file stays in order; the first that does not fit keeps the rest waiting.
        while self._waiting and self._append(self._waiting[0]):
            self._waiting.popleft()

    def _append(self, line: bytes) -> bool:
        """Whether there was space for the whole line. The rest of a line that was cut off is not taken up again."""
        try:
            file = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                size = os.fstat(file).st_size
                if size and os.pread(file, 1, size - 1) != b"\n":
                    line = b"\n" + line  # so that the half line before does not spoil this one
                return os.write(file, line) == len(line)
            finally:
                os.close(file)
        except OSError as error:
            if is_disk_full(error):
                return False
            raise


def read_events(path: Path) -> list[dict[str, Any]]:
    """All lines of an event log, oldest first; a last line that a full disk or a crash cut off is left out.

    A file that is not there has no events.
    """
    if not path.exists():
        return []
    events = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return events
