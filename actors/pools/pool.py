"""Workers that take requests: what comes in the place of a lost one, and how many there are."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any

from actors.faults import NoWorkerLeft, WorkersKeepDying
from actors.pools.loss import failure
from actors.pools.members import Member, PoolObserver, Replacing, W
from actors.pools.places import Places

REST_S = 60.0
"""After so many losses in a row at one place that it would be given up, seconds until the next try; where the pool has
the workers that it needs."""


class Pool(Places[W]):
    """Places at workers that are replaced, and as many as are wanted. Can be sent to another process before it is used.

    Args:
        kind: what the workers are called: KIND-0, KIND-1, ...
        workers: their handles.
        max_open: requests at one worker at the same time; more wait here.
        replacing: None: lost workers are missing from then on, and without any the pool has failed.
        bring_up: makes a new worker, a member but for serving, ready to serve; None if it is so from the beginning.
        let_go: ends a worker that has left, in order; None if there is nothing to do.
        observer: told of every loss and replacement.
    """

    def __init__(
        self,
        kind: str,
        workers: Sequence[W],
        max_open: float,
        replacing: Replacing[W] | None = None,
        bring_up: Callable[[Member[W]], Awaitable[None]] | None = None,
        let_go: Callable[[Member[W]], Awaitable[None]] | None = None,
        observer: PoolObserver | None = None,
    ) -> None:
        super().__init__((Member(i, f"{kind}-{i}", worker) for i, worker in enumerate(workers)), max_open)
        self._kind = kind
        self._replacing, self._bring_up, self._let_go = replacing, bring_up, let_go
        self._observer = observer or PoolObserver()
        self._losses_in_a_row: Counter[int] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._num_wanted = self._num_needed = len(workers)
        self._filling: dict[int, asyncio.Task[None]] = {}
        self._leaving: set[int] = set()
        self._is_held = False
        self.waiting: set[int] = set()
        """Indices of workers that have no room yet."""
        self.num_replaced = 0

    def resize(self, num_wanted: int, num_needed: int) -> None:
        """Have other numbers of workers. Those with the highest numbers leave; new ones come when they have room.

        Args:
            num_wanted: workers where there is room for them.
            num_needed: workers without which whatever keeps one of them from being made ends the pool.
        """
        self._num_wanted, self._num_needed, self._is_held = num_wanted, num_needed, False
        for member in self.members:
            member.is_leaving = member.index >= num_wanted
            self.became_idle(member)
        for index, task in list(self._filling.items()):
            if index >= num_wanted:
                task.cancel()
        self._fill_up()
        self._hand_out()

    @property
    def lacks_room(self) -> bool:
        """Whether there are fewer workers than needed, for want of room: those that are being made count."""
        num_placed = len(self._members) + len(self._filling) - len(self.waiting)
        return bool(self.waiting) and num_placed < self._num_needed

    def hold(self) -> None:
        """Make no more workers, until :meth:`resize`: others need the room first."""
        self._is_held = True
        for task in list(self._filling.values()):
            task.cancel()

    def dismiss(self, indices: Collection[int]) -> None:
        """These workers leave, until :meth:`resize`."""
        for member in self.members:
            if member.index in indices:
                member.is_leaving = True
                self.became_idle(member)

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
            if self._replacing.rooms is not None:
                self._replacing.rooms.give_back(member.index)
            if not member.is_leaving and not self._is_held:
                self._fill(member.index, self._replacing, cause)
        elif not self._members:
            self.fail(NoWorkerLeft(f"no {self._kind} worker is left; the last: {cause}"))
        return True

    async def close(self) -> list[Member[W]]:
        """Stop replacing and hand out no more places; returns the members that were left."""
        self._is_held = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        left = self.members
        self._members.clear()
        return left

    def _fill_up(self) -> None:
        """Make the workers that are wanted and neither there nor on their way."""
        if self._replacing is None or self._is_held or self.failure is not None:
            return
        for index in range(self._num_wanted):
            if index not in self._members and index not in self._filling and index not in self._leaving:
                self._fill(index, self._replacing, "")

    def _fill(self, index: int, replacing: Replacing[W], cause: str) -> None:
        def done(task: asyncio.Task[None]) -> None:
            if self._filling.get(index) is task:
                del self._filling[index]
            if task.cancelled():
                self._fill_up()  # it may be wanted again by now

        self._filling[index] = self._spawn(self._make(index, replacing, cause))
        self._filling[index].add_done_callback(done)

    async def _make(self, index: int, replacing: Replacing[W], cause: str) -> None:
        """Make the worker of an index; try again until the limit of losses in a row.

        Args:
            cause: why the one before was lost; empty if there was none.
        """
        replaces = bool(cause)
        while self.failure is None:
            if self._losses_in_a_row[index] > replacing.max_failures and not await self._is_spared(index, cause):
                return
            try:
                member = await self._ready(index, replacing)
            except Exception as error:  # whatever it is, the next attempt or the limit answers it
                self._losses_in_a_row[index] += 1
                name = f"{self._kind}-{index}"
                cause = str(failure(name, "start", error, replacing.start_timeout_s))
                self._observer.worker_event(name, f"replacement lost: {cause}")
                continue
            # Since `bring_up` looked at the weights for the last time nothing else has run, so none are missed.
            self._members[index] = member
            if replaces:
                self.num_replaced += 1
                self._observer.worker_event(member.name, "replaced")
            else:
                self._observer.worker_joined(member.name)
            self._observer.worker_started(member.name, member.worker)
            self._hand_out()
            return

    async def _ready(self, index: int, replacing: Replacing[W]) -> Member[W]:
        """A new worker that can serve, in a room of its own."""
        rooms = replacing.rooms
        try:
            if rooms is not None:
                self.waiting.add(index)
                await rooms.take(index)
                self.waiting.discard(index)
            member = Member(index, f"{self._kind}-{index}", replacing.create(index))
            if self._bring_up is not None:
                async with asyncio.timeout(replacing.start_timeout_s):
                    await self._bring_up(member)
            return member
        except BaseException:
            if rooms is not None:
                rooms.give_back(index)
            raise
        finally:
            self.waiting.discard(index)

    async def _is_spared(self, index: int, cause: str) -> bool:
        """Whether a place at which worker after worker is lost may be tried again, after a rest; else the pool ends."""
        name, times = f"{self._kind}-{index}", self._losses_in_a_row[index]
        limit = self._replacing.max_failures if self._replacing is not None else 0
        why = f"{cause.rstrip('.')}; {name} was lost {times} times and no request was finished in between"
        if len(self._members) < self._num_needed:
            self.fail(WorkersKeepDying(f"{why} (recovery.max_worker_losses allows {limit:g})"))
            return False
        self._observer.worker_event(name, f"given up for {REST_S:g} s: {why}")
        await asyncio.sleep(REST_S)
        self._losses_in_a_row[index] = 0
        return True

    def became_idle(self, member: Member[W]) -> None:
        """Let a worker go that is leaving and has nothing left to do."""
        if member.is_leaving and not member.open and self._members.get(member.index) is member:
            del self._members[member.index]
            self._leaving.add(member.index)
            self._spawn(self._dismiss(member))

    async def _dismiss(self, member: Member[W]) -> None:
        try:
            if self._let_go is not None:
                await self._let_go(member)
        finally:
            if self._replacing is not None and self._replacing.rooms is not None:
                self._replacing.rooms.give_back(member.index)
            self._leaving.discard(member.index)
        self._observer.worker_left(member.name)
        self._fill_up()  # it may be wanted again by now

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
