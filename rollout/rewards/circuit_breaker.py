"""Leaves a server alone that does not work, and tries it again with one request at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class CircuitBreaker:
    """Closed: requests pass. Open, after failures in a row: they wait. Half open, after a pause: one passes.

    Failures are in a row if they belong to requests that *began* one after the other with none between them that
    succeeded. The order in which requests end would not do: of a hundred that are sent at once, those that time out
    are the last to end, all of them in a row, however many others the server has answered.

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
        self._num_begun = 0
        self._last_success = 0
        self._failed: list[int] = []
        self._opened_at = 0.0
        self._trying = False
        self._changed = asyncio.Condition()
        self.num_opened = 0
        """How often it has opened, or has stayed open after a trial."""

    @property
    def is_open(self) -> bool:
        """Whether requests wait."""
        return len(self._failed) >= self._max_failures

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Around one request: waits until it may be made; an exception that leaves the block is a failure.

        A request that is cancelled, as by a time-out, counts as failed too: the server has not answered it.
        """
        is_trial = await self._admit()
        self._num_begun += 1
        number, failed = self._num_begun, True
        try:
            yield
            failed = False
        finally:
            self._settle(number, failed, is_trial)
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

    def _settle(self, number: int, failed: bool, is_trial: bool) -> None:
        if is_trial:
            self._trying = False
        if not failed:
            self._last_success = max(self._last_success, number)
            self._failed = [begun for begun in self._failed if begun > self._last_success]
            return
        if number < self._last_success:
            return
        was_open = self.is_open
        self._failed.append(number)
        if self.is_open and (is_trial or not was_open):
            self._opened_at = self._now()
            self.num_opened += 1
