"""Leaves a server alone that does not work, and tries it again with one request at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class CircuitBreaker:
    """Closed: requests pass. Open, after failures in a row: they wait. Half open, after a pause: one passes.

    Requests wait instead of failing at once, because a trajectory without a score is lost work; their own time-out
    bounds the wait.

    Args:
        max_failures: failures in a row that open it.
        pause_s: time until the next trial, in seconds.
        now: clock, in seconds.
    """

    def __init__(self, max_failures: int, pause_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._max_failures = max_failures
        self._pause_s = pause_s
        self._now = now
        self._failures = 0
        self._opened_at = 0.0
        self._trying = False
        self._changed = asyncio.Condition()
        self.num_opened = 0
        """How often it has opened, or has stayed open after a trial."""

    @property
    def is_open(self) -> bool:
        """Whether requests wait."""
        return self._failures >= self._max_failures

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Around one request: waits until it may be made; an exception that leaves the block is a failure.

        A request that is cancelled, as by a time-out, counts as failed too: the server has not answered it.
        """
        is_trial = await self._admit()
        failed = True
        try:
            yield
            failed = False
        finally:
            self._settle(failed, is_trial)
            async with self._changed:
                self._changed.notify_all()

    async def _admit(self) -> bool:
        """Wait for a turn; whether it is the trial of a half-open breaker."""
        async with self._changed:
            while self.is_open:
                rest_s = self._opened_at + self._pause_s - self._now()
                if rest_s <= 0 and not self._trying:
                    self._trying = True
                    return True
                try:
                    await asyncio.wait_for(self._changed.wait(), max(rest_s, 0.01) if not self._trying else None)
                except TimeoutError:
                    continue
        return False

    def _settle(self, failed: bool, is_trial: bool) -> None:
        if is_trial:
            self._trying = False
        if not failed:
            self._failures = 0
            return
        self._failures += 1
        if self.is_open and (is_trial or self._failures == self._max_failures):
            self._opened_at = self._now()
            self.num_opened += 1
