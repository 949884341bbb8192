"""Ctrl-C and SIGTERM as a flag that the driver looks at between two short waits."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

HANDLED = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """A signal arrived before training had begun, so there is nothing to save."""


class SignalFlag:
    """Remembers the first signal. An exception out of a handler could strike inside Ray's compiled code."""

    def __init__(self) -> None:
        self.received: int | None = None

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
        self.received = self.received or signum
