"""How long a controller goes on that nobody asks for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Lease:
    """Runs out when it has not been renewed for a while.

    A controller on another host than the driver may be cut off from it and live on, while another one takes its place.
    The driver renews the lease by asking what is new, and waits until it must have run out before it starts another.

    Args:
        duration_s: longest time between two renewals.
        now: clock in seconds that never goes back.
    """

    def __init__(self, duration_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._duration_s, self._now = duration_s, now
        self._ends = now() + duration_s

    def renew(self) -> None:
        """From now on it is whole again."""
        self._ends = self._now() + self._duration_s

    @property
    def left_s(self) -> float:
        """Seconds until it runs out; 0 if it has."""
        return max(0.0, self._ends - self._now())

    async def run_out(self) -> None:
        """Return when it has run out."""
        while (left := self.left_s) > 0.0:
            await asyncio.sleep(left)
