"""How many rollout workers a run has: what is wanted, what there is room for, and how long it waits for that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from actors.faults import NoRoom
from actors.pools.rollout_pool import RolloutPool
from actors.recording.journal import Level
from actors.recording.run_status import RunStatus
from actors.recording.tell import TellEvent

LOOK_S = 1.0
"""Seconds between two looks at what is wanted and what there is."""
FIRST_TOLD_S, TELL_EVERY_S = 2.0, 30.0
"""Seconds without room that nobody needs to know of, and between two lines while the run waits."""


class Staffing:
    """Keeps a pool at the number of workers that is wanted.

    Args:
        pool: of the rollout workers.
        fewest, most: workers that the run needs, and those that it has where there is room; by the configuration.
        order: number of workers that was told by hand, or None. It may block.
        lack: given names of workers without room, what they need and what there is. It may block.
        status: what the run is doing.
        tell: writes an event down.
        timeout_s: how long the run waits for the workers that it needs, in seconds.
        now: clock in seconds that never goes back.
    """

    def __init__(
        self,
        *,
        pool: RolloutPool,
        fewest: int,
        most: int,
        order: Callable[[], int | None],
        lack: Callable[[Sequence[str]], str],
        status: RunStatus,
        tell: TellEvent,
        timeout_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool, self._fewest, self._most = pool, fewest, most
        self._order, self._lack = order, lack
        self._status, self._tell, self._timeout_s, self._now = status, tell, timeout_s, now
        self._ordered: int | None = None
        self._without_room: list[str] = []
        self._since = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        self._follow(await asyncio.to_thread(self._order), is_first=True)
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Do what was told since the last look, and say what has no room."""
        self._follow(await asyncio.to_thread(self._order))
        if self._pool.lacks_room:
            await self._wait()
        elif self._pool.waiting != self._without_room:
            self._without_room, self._since = self._pool.waiting, self._now()
        elif self._without_room and self._since < float("inf") and self._now() - self._since > FIRST_TOLD_S:
            self._since = float("inf")  # they are not needed: once is enough
            text = await self._missing(self._without_room)
            self._say(f"no room for {text}; they join when a host has some", "info")

    async def _wait(self) -> None:
        """Wait for what the run cannot do without; that is a state and no standstill."""
        begin, told_at = self._now(), self._now() + FIRST_TOLD_S
        with self._status.stage("wait for room"):
            while self._pool.lacks_room:
                self._status.progress()
                waited = self._now() - begin
                if waited > self._timeout_s:
                    missing = await self._missing(self._pool.waiting)
                    limit = f"no room in the cluster for {self._timeout_s:g} s (recovery.resource_timeout_s) for"
                    self._pool.fail(NoRoom(f"{limit} {missing}. Add a host, and go on with --resume"))
                    return
                if self._now() >= told_at:
                    missing = await self._missing(self._pool.waiting)
                    self._say(f"waiting for room, for {waited:.0f} of at most {self._timeout_s:g} s, for {missing}")
                    told_at = self._now() + TELL_EVERY_S
                await asyncio.sleep(LOOK_S)
                self._follow(await asyncio.to_thread(self._order))

    async def _missing(self, names: Sequence[str]) -> str:
        """Who has no room, and what there is."""
        lack = await asyncio.to_thread(self._lack, names)
        serving = len(self._pool.workers_by_name)
        there = f"{serving} serve{'s' if serving == 1 else ''}, the run needs {self._needed}"
        return f"{', '.join(names)}: {there}; {lack}"

    @property
    def _needed(self) -> int:
        return self._fewest if self._ordered is None else min(self._fewest, self._ordered)

    def _follow(self, order: int | None, is_first: bool = False) -> None:
        """Have as many as were told, or else as the configuration says."""
        if order == self._ordered and not is_first:
            return
        self._ordered = order
        if order is not None:
            self._say(f"rollout workers wanted: {order}, as told by dvpo scale", "info")
        elif not is_first:
            self._say(f"rollout workers wanted: {self._most}, as configured", "info")
        self._pool.resize(self._most if order is None else order, self._needed)

    def _say(self, text: str, level: Level = "warning") -> None:
        self._tell("scale", self._status.step, text, level)
