"""Requests over workers: who takes the next one, and who waits for a place.

Who wakes whom: a request that finds no free place waits in a queue, with a future of its own. Whoever frees a place (a
request that ends, a worker that joins, a waiter that gives up) hands it to the first who may take it and wakes nobody
else, so a request is woken once, however many others wait. Only the end of the pool wakes all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic

from actors.pools.members import Member, W


@dataclass(eq=False, slots=True)
class _Waiter(Generic[W]):
    key: str
    place: asyncio.Future[Member[W]]


class Places(Generic[W]):
    """Places at workers, and those that wait for one.

    Args:
        members: the workers.
        max_open: requests at one worker at the same time; more wait here.
    """

    def __init__(self, members: Iterable[Member[W]], max_open: float) -> None:
        self._members = {member.index: member for member in members}
        self._max_open = max_open
        self._alone: deque[_Waiter[W]] = deque()
        self._others: deque[_Waiter[W]] = deque()
        self.failure: Exception | None = None
        """What every request raises from now on."""

    @property
    def members(self) -> list[Member[W]]:
        """Those that serve, by index."""
        return [self._members[index] for index in sorted(self._members)]

    @asynccontextmanager
    async def place(self, key: str, alone: bool = False) -> AsyncIterator[Member[W]]:
        """A place at the least busy worker inside the block; waits for one.

        Args:
            key: names the request in :attr:`Member.open`; several may have the same.
            alone: the worker has nothing else meanwhile. Such requests come before the others.

        Raises:
            Exception: what :meth:`fail` or :meth:`refuse` was given.
        """
        member = await self._acquire(key, alone)
        try:
            yield member
        finally:
            self._release(member, key)

    def fail(self, error: Exception) -> None:
        """Every request that waits, or comes, raises ``error``; of several errors, the first.

        This wakes all: no place will ever be handed to those that wait.
        """
        self.failure = self.failure or error
        for waiter in (*self._alone, *self._others):
            if not waiter.place.done():
                waiter.place.set_exception(self.failure)
        self._alone.clear()
        self._others.clear()

    def refuse(self, key: str, error: Exception) -> None:
        """The requests of this key that wait raise ``error``."""
        for waiter in (*self._alone, *self._others):
            if waiter.key == key and not waiter.place.done():
                waiter.place.set_exception(error)
        self._hand_out()  # a worker may have been kept free for one of them

    async def _acquire(self, key: str, alone: bool) -> Member[W]:
        if self.failure is not None:
            raise self.failure
        waiter: _Waiter[W] = _Waiter(key, asyncio.get_running_loop().create_future())
        (self._alone if alone else self._others).append(waiter)
        self._hand_out()  # at once where a place is free, and never past those that came before
        try:
            return await waiter.place
        except asyncio.CancelledError:
            place = waiter.place
            if place.done() and not place.cancelled() and place.exception() is None:
                self._release(place.result(), key)  # it was handed over and not yet taken: it goes to the next one
            else:
                self._hand_out()  # a worker may have been kept free for this one
            raise

    def _release(self, member: Member[W], key: str) -> None:
        member.open.remove(key)
        if not member.open:
            member.is_exclusive = False
            self.became_idle(member)
        self._hand_out()

    def _hand_out(self) -> None:
        """Give free places to those that wait: those that must be alone first, then the others, in their order."""
        for waiters, alone in ((self._alone, True), (self._others, False)):
            while waiters:
                if waiters[0].place.done():  # given up or refused
                    waiters.popleft()
                    continue
                if (member := self._choose(alone)) is None:
                    break
                waiter = waiters.popleft()
                member.open.append(waiter.key)
                member.is_exclusive = alone
                waiter.place.set_result(member)

    def _choose(self, alone: bool) -> Member[W] | None:
        """The least busy worker that may take one more; None if there is none now.

        While a request waits to be alone, the least busy worker takes nothing more. So the fewest requests that any
        worker has can only become fewer, and one worker is idle in the end, whatever comes in meanwhile.
        """
        free = [m for m in self._members.values() if not m.is_exclusive and len(m.open) < self._max_open]
        free = [member for member in free if not member.is_leaving]
        if not free:
            return None
        least_busy = min(free, key=_load)
        if alone:
            return None if least_busy.open else least_busy
        if self._alone:
            return min((member for member in free if member is not least_busy), key=_load, default=None)
        return least_busy

    def became_idle(self, member: Member[W]) -> None:
        """The last request of a worker has ended."""


def _load(member: Member[Any]) -> tuple[int, int]:
    """What the least busy worker has least of; of several the first is taken."""
    return len(member.open), member.index
