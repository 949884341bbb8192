"""Ctrl-C and SIGTERM as a flag that the driver looks at between two short waits."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

HANDLED = (signal.SIGINT, signal.SIGTERM)
APART_S = 1.0
"""A second Ctrl-C within this time is the same one: some programs pass it on once more."""


class Interrupted(Exception):
    """A signal arrived before training had begun, so there is nothing to save."""


class SignalFlag:
    """Remembers the first signal. An exception out of a handler could strike inside Ray's compiled code.

    A second Ctrl-C ends the process at once, without a checkpoint; whatever it leaves is then cleared up by the reaper
    of a private Ray, or by the cluster that was joined. A second SIGTERM does nothing: schedulers repeat theirs.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._first_time = 0.0

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle both signals inside the block."""
        before = {number: signal.getsignal(number) for number in HANDLED}
        self.install()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def install(self) -> None:
        """Set the handlers (again): connecting to Ray replaces that of SIGTERM by one that aborts the process."""
        for number in HANDLED:
            signal.signal(number, self._note)

    def check(self) -> None:
        """Raise :class:`Interrupted` if a signal has come."""
        if self.received is not None:
            raise Interrupted(signal.Signals(self.received).name)

    def _note(self, signum: int, _: FrameType | None) -> None:
        if self.received is None:
            self.received, self._first_time = signum, time.monotonic()
        elif signum == signal.SIGINT and time.monotonic() - self._first_time > APART_S:
            # By the signal itself: the shell that waits for this process sees what ended it.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
