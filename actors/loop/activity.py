"""How much of the wall time was spent generating, training, or both at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class ActivityClock:
    """Accumulates seconds during which named activities run, alone and together.

    Args:
        now: a monotonic clock in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since = now()
        self._active: dict[str, int] = {}
        self._seconds: dict[frozenset[str], float] = {}

    def enter(self, activity: str) -> None:
        """One more of ``activity`` has begun."""
        self._settle()
        self._active[activity] = self._active.get(activity, 0) + 1

    def leave(self, activity: str) -> None:
        """One of ``activity`` has ended."""
        self._settle()
        self._active[activity] -= 1
        if self._active[activity] == 0:
            del self._active[activity]

    @contextmanager
    def during(self, activity: str) -> Iterator[None]:
        """``activity`` runs inside the block."""
        self.enter(activity)
        try:
            yield
        finally:
            self.leave(activity)

    def take(self) -> dict[frozenset[str], float]:
        """Seconds by set of simultaneous activities since the last call."""
        self._settle()
        seconds, self._seconds = self._seconds, {}
        return seconds

    def _settle(self) -> None:
        now = self._now()
        key = frozenset(self._active)
        self._seconds[key] = self._seconds.get(key, 0.0) + now - self._since
        self._since = now


def seconds_with(seconds: dict[frozenset[str], float], *activities: str) -> float:
    """Seconds in which all of ``activities`` ran at the same time."""
    wanted = set(activities)
    return sum(value for key, value in seconds.items() if wanted <= key)
