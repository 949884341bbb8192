"""The watchdog: says what a run is stuck in when nothing has got done for too long, and hands it on to a policy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from actors.recording.run_status import RunStatus

DUMP_TIMEOUT_S = 60.0


class Watchdog:
    """Looks at a :class:`RunStatus` in the event loop of the controller.

    A loop that is blocked itself cannot be seen from inside: the driver watches over that by asking the controller.

    Args:
        status: whose progress counts.
        timeout_s: longest time without progress, in seconds.
        dump: writes stack dumps of the workers; returns lines that say where they are.
        on_stuck: given the report, once for each stall; what to do about it is its business.
    """

    def __init__(
        self,
        status: RunStatus,
        timeout_s: float,
        dump: Callable[[], Awaitable[list[str]]],
        on_stuck: Callable[[str], Awaitable[None]],
    ) -> None:
        self._status = status
        self._timeout_s = timeout_s
        self._dump = dump
        self._on_stuck = on_stuck

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            await self._wait_for(stuck=True)
            await self._on_stuck(await self._report())
            await self._wait_for(stuck=False)

    async def _wait_for(self, stuck: bool) -> None:
        """Return as soon as the run is stuck, or is so no longer."""
        longest = max(0.01, min(self._timeout_s / 20, 5.0))
        while (self._status.idle_s() > self._timeout_s) is not stuck:
            await asyncio.sleep(longest)

    async def _report(self) -> str:
        lines = self._status.describe()
        try:
            dumps = await asyncio.wait_for(self._dump(), DUMP_TIMEOUT_S)
        except TimeoutError:
            dumps = [f"none within {DUMP_TIMEOUT_S:g} s"]
        except Exception as error:  # the report matters more than why a part of it is missing
            dumps = [f"none: {type(error).__name__}: {error}"]
        return "\n".join([*lines, "stack dumps:", *(f"  {line}" for line in dumps)])
