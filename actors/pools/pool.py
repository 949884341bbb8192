"""Requests over workers: who takes the next one, who waits for a place, and what comes in the place of a lost worker.

Who wakes whom: a request that finds no free place waits in a queue, with a future of its own. Whoever frees a place (a
request that ends, a worker that joins, a waiter that gives up) hands it to the first who may take it and wakes nobody
else, so a request is woken once, however many others wait. Only the end of the pool wakes all of them.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from actors.calls.caller import Caller, caller_of
from actors.faults import NoWorkerLeft, WorkersKeepDying
from actors.pools.loss import failure

W = TypeVar("W")
"""Handle of a worker."""


class PoolObserver:
    """Hears what happens to workers and requests; does nothing by itself."""

    def worker_event(self, worker: str, text: str) -> None:
        """Something noteworthy happened to a worker."""

    def worker_started(self, worker: str, handle: Any) -> None:
        """A replacement serves."""

    def request_reissued(self, trajectory_id: str, cause: str) -> None:
        """A request was lost with its worker and is asked for again."""

    def prompt_quarantined(self, prompt_id: str, reason: str) -> None:
        """A prompt is not asked for any more."""


@dataclass(frozen=True, slots=True)
class Replacing(Generic[W]):
    """How lost workers are replaced.

    Attributes:
        create: makes the worker of an index.
        start_timeout_s: longest time until it serves, in seconds; None: as long as it takes.
        max_failures: losses in a row at one place, with no request finished anywhere in between, above which the pool
            is given up. By place, since one fault (a node, a restart of the controller) may take many workers at once.
    """

    create: Callable[[int], W]
    start_timeout_s: float | None
    max_failures: float


@dataclass(eq=False, slots=True)
class Member(Generic[W]):
    """One worker from when it joins until it is lost; what takes its place is another member.

    Attributes:
        index: its place in the pool.
        open: keys of the requests that it has.
        is_exclusive: whether it has one that must be alone.
        started: for pools whose workers join before they can serve: what their first requests wait for.
        caller: calls methods of the worker.
    """

    index: int
    name: str
    worker: W
    open: list[str] = field(default_factory=list)
    is_exclusive: bool = False
    started: asyncio.Task[Any] | None = None
    caller: Caller = field(init=False)

    def __post_init__(self) -> None:
        self.caller = caller_of(self.worker)


@dataclass(eq=False, slots=True)
class _Waiter(Generic[W]):
    key: str
    place: asyncio.Future[Member[W]]


class Pool(Generic[W]):
    """Places at workers. Can be sent to another process before it is used.

    Args:
        kind: what the workers are called: KIND-0, KIND-1, ...
        workers: their handles.
        max_open: requests at one worker at the same time; more wait here.
        replacing: None: lost workers are missing from then on, and without any the pool has failed.
        bring_up: makes a new worker, of this name, ready to serve; None if it is so from the beginning.
        observer: told of every loss and replacement.
    """

    def __init__(
        self,
        kind: str,
        workers: Sequence[W],
        max_open: float,
        replacing: Replacing[W] | None = None,
        bring_up: Callable[[str, W], Awaitable[None]] | None = None,
        observer: PoolObserver | None = None,
    ) -> None:
        self._kind, self._max_open = kind, max_open
        self._replacing, self._bring_up = replacing, bring_up
        self._observer = observer or PoolObserver()
        self._members = {i: Member(i, f"{kind}-{i}", worker) for i, worker in enumerate(workers)}
        self._alone: deque[_Waiter[W]] = deque()
        self._others: deque[_Waiter[W]] = deque()
        self._losses_in_a_row: Counter[int] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self.failure: Exception | None = None
        """What every request raises from now on."""
        self.num_replaced = 0

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

    def request_finished(self) -> None:
        """A worker has answered a request: losses before that and losses after it are not in a row."""
        self._losses_in_a_row.clear()

    def lose(self, member: Member[W], cause: str) -> bool:
        """Take a dead or hung worker out and have it replaced; whether it was there (each of its requests says so)."""
        if self._members.get(member.index) is not member:
            return False
        del self._members[member.index]
        self._losses_in_a_row[member.index] += 1
        self._observer.worker_event(member.name, f"lost: {cause}")
        if self._replacing is not None:
            self._spawn(self._replace(member, self._replacing, cause))
        elif not self._members:
            self.fail(NoWorkerLeft(f"no {self._kind} worker is left; the last: {cause}"))
        return True

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

    async def close(self) -> list[Member[W]]:
        """Stop replacing and hand out no more places; returns the members that were left."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        left = self.members
        self._members.clear()
        return left

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
        if not free:
            return None
        least_busy = min(free, key=_load)
        if alone:
            return None if least_busy.open else least_busy
        if self._alone:
            return min((member for member in free if member is not least_busy), key=_load, default=None)
        return least_busy

    async def _replace(self, lost: Member[W], replacing: Replacing[W], cause: str) -> None:
        """Put a new worker in the place of a lost one; try again until the limit of losses in a row."""
        while self.failure is None and self._losses_in_a_row[lost.index] <= replacing.max_failures:
            try:
                worker = replacing.create(lost.index)
                if self._bring_up is not None:
                    async with asyncio.timeout(replacing.start_timeout_s):
                        await self._bring_up(lost.name, worker)
            except Exception as error:  # whatever it is, the next attempt or the limit answers it
                self._losses_in_a_row[lost.index] += 1
                cause = str(failure(lost.name, "start", error, replacing.start_timeout_s))
                self._observer.worker_event(lost.name, f"replacement lost: {cause}")
                continue
            # Since `bring_up` looked at the weights for the last time nothing else has run, so none are missed.
            self._members[lost.index] = Member(lost.index, lost.name, worker)
            self.num_replaced += 1
            self._observer.worker_event(lost.name, "replaced")
            self._observer.worker_started(lost.name, worker)
            self._hand_out()
            return
        times = f"{lost.name} was lost {self._losses_in_a_row[lost.index]} times and no request was finished in between"
        limit = f"recovery.max_worker_losses allows {replacing.max_failures:g}"
        self.fail(WorkersKeepDying(f"{cause.rstrip('.')}; {times} ({limit})"))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _load(member: Member[Any]) -> tuple[int, int]:
    """What the least busy worker has least of; of several the first is taken."""
    return len(member.open), member.index
