"""A forked process that reports what it does, and is killed."""

from __future__ import annotations

import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from typing import Any

Tell = Callable[..., None]
"""``tell(what, step, digest, **more)`` sends a message to the parent, which gets it even if the process dies next."""


class ForkedProcess:
    """Runs a function in a fork of this process.

    Args:
        run: called with what sends messages. What it raises is raised by :meth:`message`.
    """

    def __init__(self, run: Callable[[Tell], None]) -> None:
        reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reader)
            try:
                run(_teller(writer))
            except BaseException:
                _send(writer, {"what": "error", "text": traceback.format_exc()})
            os._exit(1)
        os.close(writer)
        self._reader, self._buffer = reader, b""

    def message(self, timeout_s: float) -> dict[str, Any] | None:
        """The next message; None if there is none in time, or no more."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([self._reader], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._reader, 65536) if ready else b""
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        if found["what"] == "error":
            raise RuntimeError(found["text"])
        return found

    def kill(self) -> list[dict[str, Any]]:
        """SIGKILL; returns the messages that were still under way."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        rest = []
        while (found := self.message(0.0)) is not None:
            rest.append(found)
        os.close(self._reader)
        return rest


def _teller(writer: int) -> Tell:
    def tell(what: str, step: int | None, digest: str = "", **more: Any) -> None:
        _send(writer, {"what": what, "step": step, "digest": digest, "time": time.monotonic(), **more})

    return tell


def _send(writer: int, message: dict[str, Any]) -> None:
    os.write(writer, (json.dumps(message) + "\n").encode())
