"""All rollout workers as one: requests go to the least busy, weights to all, and a worker that is lost is replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import ray
from ray.exceptions import RayActorError, RayTaskError

from actors.faults import Quarantined, TooManyQuarantined, WorkersKeepDying
from actors.pools.loss import PoolObserver, Replacing, is_loss, loss_cause
from actors.pools.ranks import failure
from actors.pools.suspects import Suspects
from rollout.sampling.weight_check import WeightMismatchError
from rollout.trajectory import SampleRequest, Trajectory, TrajectorySummary

T = TypeVar("T")
LoadWeights = Callable[[str, Any], Awaitable[None]]
"""Brings one worker (name, handle) to the current weights."""


@dataclass(slots=True)
class _Member:
    index: int
    name: str
    handle: Any
    is_live: bool = True
    is_exclusive: bool = False
    open: list[SampleRequest] = field(default_factory=list)
    loaded: LoadWeights | None = None


class RolloutPool:
    """Dispatches requests over the actors of :class:`actors.workers.rollout_worker.RolloutWorker`.

    Args:
        workers: actor handles, started.
        max_requests_per_worker: requests open at one worker at the same time; more wait here.
        request_timeout_s: longest time one request may take; a worker that exceeds it is taken for hung and replaced.
        replacing: None lets the first loss end the run.
        suspects: finds prompts that kill workers.
        observer: told of every loss and replacement.
    """

    def __init__(
        self,
        workers: list[Any],
        max_requests_per_worker: int,
        request_timeout_s: float,
        replacing: Replacing | None = None,
        suspects: Suspects | None = None,
        observer: PoolObserver | None = None,
    ) -> None:
        self._members = [_Member(i, f"rollout-{i}", handle) for i, handle in enumerate(workers)]
        self._limit = max_requests_per_worker
        self._request_timeout_s = request_timeout_s
        self._replacing = replacing
        self.suspects = suspects or Suspects(0)
        self._observer = observer or PoolObserver()
        self._load: LoadWeights | None = None
        self._changed = asyncio.Condition()
        self._num_alone = 0
        self._losses_in_a_row = 0
        self._failure: Exception | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.num_replaced = 0

    @property
    def workers_by_name(self) -> dict[str, Any]:
        """Handles of the workers that serve."""
        return {member.name: member.handle for member in self._members if member.is_live}

    def set_weights(self, load: LoadWeights) -> None:
        """Say how a replacement is brought to the current weights before it serves."""
        self._load = load

    async def sample(self, request: SampleRequest) -> tuple[TrajectorySummary, Any]:
        """One training trajectory: its summary, and a reference to the tokens in the object store.

        Raises:
            Quarantined: the prompt killed or wedged workers twice.
        """

        async def call(worker: Any) -> tuple[TrajectorySummary, Any]:
            summary_ref, trajectory_ref = worker.sample.options(num_returns=2).remote(request)
            return await summary_ref, trajectory_ref

        return await self._ask(request, call, self._observer.request_reissued)

    async def answer(self, request: SampleRequest) -> Trajectory:
        """One greedy response.

        Raises:
            Quarantined: as for :meth:`sample`.
        """

        async def call(worker: Any) -> Trajectory:
            answer: Trajectory = await worker.answer.remote(request)
            return answer

        return await self._ask(request, call)

    async def every(self, method: str, *arguments: Any) -> dict[str, Any]:
        """Call ``method`` on all live workers; answers by worker name. One that is lost on the way has none.

        Raises:
            WorkerError: one reported an error.
        """

        async def one(member: _Member) -> tuple[str, Any] | None:
            handle = member.handle
            try:
                call = getattr(handle, method).remote(*arguments)
                return member.name, await asyncio.wait_for(call, self._request_timeout_s)
            except (RayActorError, TimeoutError, RayTaskError) as error:
                if not is_loss(error):
                    raise failure(member.name, method, error) from error
                await self._lose(member, handle, method, error)
                return None

        live = [member for member in self._members if member.is_live]
        return dict(answer for answer in await asyncio.gather(*map(one, live)) if answer is not None)

    async def stop(self, timeout_s: float) -> None:
        """Stop replacing workers, and shut the engines down in order."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        live = [member for member in self._members if member.is_live]
        for member in live:
            member.is_live = False
        with suppress(Exception):  # an engine that does not answer is ended with its actor
            stops = (asyncio.ensure_future(_answer(member.handle.stop.remote())) for member in live)
            await asyncio.wait_for(asyncio.gather(*stops, return_exceptions=True), timeout_s)

    async def _ask(
        self,
        request: SampleRequest,
        call: Callable[[Any], Awaitable[T]],
        reissued: Callable[[str, str], None] = lambda _, __: None,
    ) -> T:
        """Ask one worker after another until one has answered."""
        failed = False
        while True:
            member = await self._acquire(request)
            handle = member.handle
            try:
                result = await asyncio.wait_for(call(handle), self._request_timeout_s)
            except (RayActorError, TimeoutError, RayTaskError) as error:
                if is_loss(error):
                    await self._lose(member, handle, "sample", error)
                elif failed:
                    cause = str(failure(member.name, "sample", error))
                    self._observer.prompt_quarantined(self.suspects.quarantine(request.prompt.prompt_id, cause), cause)
                failed = True
                reissued(request.trajectory_id, type(error).__name__)
            else:
                self._losses_in_a_row = 0
                if member.is_exclusive:
                    self.suspects.finished_alone(request.prompt.prompt_id)
                return result
            finally:
                await self._release(member, request)

    async def _acquire(self, request: SampleRequest) -> _Member:
        """The worker that takes the request; waits until there is one."""
        prompt_id = request.prompt.prompt_id
        async with self._changed:
            if alone := self.suspects.must_be_alone(prompt_id):
                self._num_alone += 1
            try:
                await self._changed.wait_for(
                    lambda: (
                        self._failure is not None
                        or prompt_id in self.suspects.quarantined
                        or self._choose(alone) is not None
                    )
                )
            finally:
                if alone:
                    self._num_alone -= 1
            if self._failure is not None:
                raise self._failure
            if prompt_id in self.suspects.quarantined:
                raise Quarantined(self.suspects.quarantined[prompt_id])
            member = self._choose(alone)
            assert member is not None
            member.is_exclusive = alone
            member.open.append(request)
            return member

    def _choose(self, alone: bool) -> _Member | None:
        """The least busy worker that may take one more; None if there is none now."""
        free = [m for m in self._members if m.is_live and not m.is_exclusive and len(m.open) < self._limit]
        if not free:
            return None
        least_busy = min(free, key=lambda member: len(member.open))
        if alone:
            return least_busy if not least_busy.open else None
        if self._num_alone:  # the least busy worker is left to drain for those that must be alone
            others = [member for member in free if member is not least_busy]
            return min(others, key=lambda member: len(member.open), default=None)
        return least_busy

    async def _release(self, member: _Member, request: SampleRequest) -> None:
        async with self._changed:
            if request in member.open:
                member.open.remove(request)
            if not member.open:
                member.is_exclusive = False
            self._changed.notify_all()

    async def _lose(self, member: _Member, handle: Any, method: str, error: BaseException) -> None:
        """A worker is dead or hung: end it, remember what it was doing, and have it replaced. Once for each loss."""
        if not member.is_live or member.handle is not handle:  # each of its open requests comes here
            return
        member.is_live = False
        cause = loss_cause(member.name, method, error, self._request_timeout_s)
        self._observer.worker_event(member.name, f"lost: {cause}")
        self._losses_in_a_row += 1
        with suppress(Exception):  # it may be gone already
            ray.kill(handle, no_restart=True)
        try:
            for prompt_id in self.suspects.strike({request.prompt.prompt_id for request in member.open}, cause):
                self._observer.prompt_quarantined(prompt_id, cause)
        except TooManyQuarantined as too_many:  # every request that waits raises it
            self._failure = too_many
        if self._replacing is None:
            self._failure = self._failure or failure(member.name, method, error)
        else:
            task = asyncio.get_running_loop().create_task(self._replace(member, self._replacing, cause))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        async with self._changed:
            self._changed.notify_all()

    async def _replace(self, member: _Member, replacing: Replacing, cause: str) -> None:
        """Start a new worker in the place of a lost one; try again until the limit of losses in a row."""
        while self._losses_in_a_row <= replacing.max_failures:
            handle = replacing.create(member.index)
            try:
                await asyncio.wait_for(self._bring_up(member, handle), replacing.start_timeout_s)
            except asyncio.CancelledError:
                ray.kill(handle, no_restart=True)
                raise
            except Exception as error:  # whatever it is, the next attempt or the limit answers it
                if isinstance(error, WeightMismatchError):
                    self._failure = error
                    break
                self._losses_in_a_row += 1
                cause = loss_cause(member.name, "start", error, replacing.start_timeout_s)
                self._observer.worker_event(member.name, f"replacement lost: {cause}")
                with suppress(Exception):
                    ray.kill(handle, no_restart=True)
                continue
            self.num_replaced += 1
            self._observer.worker_event(member.name, "replaced")
            self._observer.worker_started(member.name, handle)
            async with self._changed:
                self._changed.notify_all()
            return
        self._failure = self._failure or WorkersKeepDying(
            f"rollout workers were lost {self._losses_in_a_row} times and no request was finished in between "
            f"(recovery.max_worker_losses allows {replacing.max_failures}); the last: {cause}"
        )
        async with self._changed:
            self._changed.notify_all()

    async def _bring_up(self, member: _Member, handle: Any) -> None:
        """Start the engine and load the current weights, anew if they have changed meanwhile; then let it serve."""
        await handle.start.remote()
        loaded = None
        while (current := self._load) is not loaded:
            assert current is not None
            await current(member.name, handle)
            loaded = current
        member.handle, member.is_live = handle, True


async def _answer(reference: Any) -> Any:
    return await reference
