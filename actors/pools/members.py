"""Workers of a pool, where new ones get a place, and who is told what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from actors.calls.caller import Caller, caller_of

W = TypeVar("W")
"""Handle of a worker."""


class PoolObserver:
    """Hears what happens to workers and requests; does nothing by itself."""

    def worker_event(self, worker: str, text: str) -> None:
        """Something noteworthy happened to a worker."""

    def worker_started(self, worker: str, handle: Any) -> None:
        """A worker that was not there at the beginning serves."""

    def worker_joined(self, worker: str) -> None:
        """One worker more serves, in nobody's place."""

    def worker_left(self, worker: str) -> None:
        """A worker that is not wanted any more has ended, after its last request."""

    def request_reissued(self, trajectory_id: str, cause: str) -> None:
        """A request was lost with its worker and is asked for again."""

    def prompt_quarantined(self, prompt_id: str, reason: str) -> None:
        """A prompt is not asked for any more."""


class Rooms(Protocol):
    """Where the workers of a pool are; the numbers are theirs."""

    async def take(self, index: int) -> None:
        """Return when a host has room for this worker, which then has it; as long as that takes."""
        ...

    async def lost(self, index: int) -> None:
        """Return when the host of this worker is gone."""
        ...

    def give_back(self, index: int) -> None:
        """This worker needs its room no more."""
        ...


@dataclass(frozen=True, slots=True)
class Replacing(Generic[W]):
    """How workers are made: in the place of lost ones, and where more are wanted.

    Attributes:
        create: makes the worker of an index.
        start_timeout_s: longest time until it serves, in seconds; None: as long as it takes.
        max_failures: losses in a row at one place, with no request finished anywhere in between, above which the pool
            is given up. By place, since one fault (a node, a restart of the controller) may take many workers at once.
        rooms: where a worker is put, before it is made; None if that needs no looking for.
    """

    create: Callable[[int], W]
    start_timeout_s: float | None
    max_failures: float
    rooms: Rooms | None = None


@dataclass(eq=False, slots=True)
class Member(Generic[W]):
    """One worker from when it joins until it is lost or has left; what takes its place is another member.

    Attributes:
        index: its place in the pool.
        open: keys of the requests that it has.
        is_exclusive: whether it has one that must be alone.
        is_leaving: whether it gets no more requests, and is let go when it has none left.
        started: for pools whose workers join before they can serve: what their first requests wait for.
        caller: calls methods of the worker.
    """

    index: int
    name: str
    worker: W
    open: list[str] = field(default_factory=list)
    is_exclusive: bool = False
    is_leaving: bool = False
    started: asyncio.Task[Any] | None = None
    caller: Caller = field(init=False)

    def __post_init__(self) -> None:
        self.caller = caller_of(self.worker)
