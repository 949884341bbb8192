"""All rollout workers as one: requests go to the least busy, weights to all, lost ones are replaced, others join."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Any, TypeVar

from actors.calls.caller import Caller
from actors.faults import (
    DataLost,
    HostLost,
    Quarantined,
    TooManyQuarantined,
    Unreachable,
    WorkerDied,
    WorkerError,
    WorkerLost,
)
from actors.pools.loss import end, reply
from actors.pools.members import Member, PoolObserver, Replacing
from actors.pools.pool import Pool
from actors.pools.suspects import Suspects
from rollout.component import UserError
from rollout.sampling.evaluation import EvaluationSampling
from rollout.sampling.weight_check import WeightMismatchError
from rollout.trajectory import SampleRequest, Trajectory, TrajectorySummary

FIND_OUT_S = 90.0
"""Longest wait until Ray knows what has become of a worker, in seconds: of a host that is cut off it needs 65."""
LET_GO_S = 30.0
"""Longest time for an engine that has left to shut down, in seconds."""
T = TypeVar("T")
LoadWeights = Callable[[str, Any], Awaitable[None]]
"""Brings one worker (name, handle) to the current weights."""


class RolloutPool:
    """Dispatches requests over the actors of :class:`actors.workers.rollout_worker.RolloutWorker`.

    Adds two things to :class:`actors.pools.pool.Pool`: a replacement gets the current weights before it serves, and
    prompts that kill workers are found.

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
        replacing: Replacing[Any] | None = None,
        suspects: Suspects | None = None,
        observer: PoolObserver | None = None,
    ) -> None:
        self._observer = observer or PoolObserver()
        self._pool = Pool(
            "rollout", workers, max_requests_per_worker, replacing, self._bring_up, self._let_go, self._observer
        )
        self._request_timeout_s = request_timeout_s
        self._is_replacing, self._rooms = replacing is not None, replacing.rooms if replacing is not None else None
        self.suspects = suspects or Suspects(0)
        self._load: LoadWeights | None = None
        self._has_weights = asyncio.Event()
        self._finding_out: set[asyncio.Future[None]] = set()

    @property
    def workers_by_name(self) -> dict[str, Any]:
        """Handles of the workers that serve."""
        return {member.name: member.worker for member in self._pool.members}

    @property
    def num_replaced(self) -> int:
        """Workers replaced so far."""
        return self._pool.num_replaced

    @property
    def waiting(self) -> list[str]:
        """Names of workers that are wanted and have no room."""
        return [f"rollout-{index}" for index in sorted(self._pool.waiting)]

    @property
    def lacks_room(self) -> bool:
        """See :attr:`actors.pools.pool.Pool.lacks_room`."""
        return self._pool.lacks_room

    def resize(self, num_wanted: int, num_needed: int) -> None:
        """See :meth:`actors.pools.pool.Pool.resize`. Whoever leaves finishes its requests first."""
        self._pool.resize(num_wanted, num_needed)

    def hold(self) -> None:
        """See :meth:`actors.pools.pool.Pool.hold`. The weights of before are not the current ones any more."""
        self._pool.hold()
        self._load = None
        self._has_weights.clear()

    def dismiss(self, names: Collection[str]) -> None:
        """These workers leave, until :meth:`resize`."""
        self._pool.dismiss({member.index for member in self._pool.members if member.name in names})

    def fail(self, error: Exception) -> None:
        """Serve nothing any more: every request raises ``error``."""
        self._pool.fail(error)

    def set_weights(self, load: LoadWeights) -> None:
        """Say how a replacement is brought to the current weights before it serves."""
        self._load = load
        self._has_weights.set()

    async def sample(self, request: SampleRequest) -> tuple[TrajectorySummary, Any]:
        """One training trajectory: its summary, and a reference to the tokens in the object store.

        Raises:
            Quarantined: the prompt killed or wedged workers twice.
            RunOver: nothing is served any more.
        """

        def call(caller: Caller) -> Awaitable[tuple[TrajectorySummary, Any]]:
            return caller.call("sample", request, has_bulk=True)

        return await self._ask(request, call, self._observer.request_reissued)

    async def respond_greedily(self, request: SampleRequest) -> Trajectory:
        """One greedy response; raises what :meth:`sample` does."""

        def call(caller: Caller) -> Awaitable[Trajectory]:
            return caller.call("respond_greedily", request)

        return await self._ask(request, call)

    async def respond(self, request: SampleRequest, sampling: EvaluationSampling) -> Trajectory:
        """One response sampled at a setting of its own, for evaluation; raises what :meth:`sample` does."""

        def call(caller: Caller) -> Awaitable[Trajectory]:
            return caller.call("respond", request, sampling)

        return await self._ask(request, call)

    async def every(self, method: str, *arguments: Any) -> dict[str, Any]:
        """Call ``method`` on all workers that serve; answers by worker name. One that is lost on the way has none.

        Raises:
            WorkerError: one reported an error.
        """

        async def one(member: Member[Any]) -> tuple[str, Any] | None:
            call = getattr(member.worker, method).remote(*arguments)
            try:
                return member.name, await reply(call, member.name, method, self._request_timeout_s)
            except WorkerLost as lost:
                self._lose(member, lost)
                return None

        answers = await asyncio.gather(*map(one, self._pool.members))
        return dict(answer for answer in answers if answer is not None)

    def end_all(self, method: str, cause: str) -> None:
        """End all workers that serve, at once and whatever they do, and have them replaced. No prompt is to blame."""
        for member in self._pool.members:
            lost = WorkerDied(member.name, method, cause)
            if not self._is_replacing:
                self._pool.fail(lost)
            self._pool.lose(member, str(lost))
            end(member.worker)

    async def stop(self, timeout_s: float) -> None:
        """Stop replacing workers, and shut the engines down in order."""
        members = await self._pool.close()
        for member in members:
            member.caller.close()
        stops = (reply(member.worker.stop.remote(), member.name, "stop", timeout_s) for member in members)
        # An engine that does not answer, or fails, is ended with its actor.
        await asyncio.gather(*stops, return_exceptions=True)

    async def _ask(
        self,
        request: SampleRequest,
        call: Callable[[Caller], Awaitable[T]],
        reissued: Callable[[str, str], None] = lambda _, __: None,
    ) -> T:
        """Ask one worker after another until one has answered."""
        prompt_id, failed = request.prompt.prompt_id, False
        while True:
            self._require_served(prompt_id)
            alone = self.suspects.must_be_alone(prompt_id)
            async with self._pool.place(prompt_id, alone) as member:
                try:
                    result: T = await reply(call(member.caller), member.name, "sample", self._request_timeout_s)
                except (WorkerError, UserError) as error:
                    if isinstance(error, WorkerLost):
                        self._lose(member, error)
                    elif failed and not isinstance(error, DataLost):
                        self._quarantine(prompt_id, str(error))
                    failed = failed or not isinstance(error, DataLost)
                    reissued(request.trajectory_id, type(error.__cause__ or error).__name__)
                else:
                    self._pool.request_finished()
                    if alone:
                        self.suspects.finished_alone(prompt_id)
                    return result

    def _require_served(self, prompt_id: str) -> None:
        if self._pool.failure is not None:
            raise self._pool.failure
        if prompt_id in self.suspects.quarantined:
            raise Quarantined(self.suspects.quarantined[prompt_id])

    def _lose(self, member: Member[Any], lost: WorkerLost) -> None:
        """A worker is dead or hung: end it, remember what it was doing, and have it replaced. Once for each loss."""
        if not self._is_replacing:
            self._pool.fail(lost)
        if not self._pool.lose(member, str(lost)):
            return
        if isinstance(lost, Unreachable):
            task = asyncio.ensure_future(self._find_out(member, set(member.open)))
            self._finding_out.add(task)
            task.add_done_callback(self._finding_out.discard)
            return
        end(member.worker)
        self._strike(set(member.open), lost)

    async def _find_out(self, member: Member[Any], prompt_ids: set[str]) -> None:
        """Whether an unreachable worker has died, by itself or with its host, and end it."""
        try:
            await reply(member.worker.stats.remote(), member.name, "stats", FIND_OUT_S)
        except WorkerLost as lost:
            self._strike(prompt_ids, lost)
        except WorkerError:  # it lives, and so did not die of a prompt
            pass
        finally:
            end(member.worker)

    def _strike(self, prompt_ids: set[str], lost: WorkerLost) -> None:
        """Suspect what a worker was doing when it was lost, unless it was its host."""
        if isinstance(lost, HostLost):
            return
        try:
            for prompt_id in self.suspects.strike(prompt_ids, str(lost)):
                self._tell_quarantined(prompt_id, str(lost))
        except TooManyQuarantined as too_many:
            self._pool.fail(too_many)

    def _quarantine(self, prompt_id: str, cause: str) -> None:
        """Set aside a prompt that two workers have refused."""
        try:
            self.suspects.quarantine(prompt_id, cause)
        except TooManyQuarantined as too_many:
            self._pool.fail(too_many)
            raise
        self._tell_quarantined(prompt_id, cause)

    def _tell_quarantined(self, prompt_id: str, cause: str) -> None:
        self._observer.prompt_quarantined(prompt_id, cause)
        # Other samples of the prompt may wait for a place, and nobody must have to die for them.
        self._pool.refuse(prompt_id, Quarantined(self.suspects.quarantined[prompt_id]))

    async def _bring_up(self, member: Member[Any]) -> None:
        """Start the engine and load the current weights, anew if they have changed meanwhile."""
        name, handle = member.name, member.worker
        watching = asyncio.ensure_future(self._end_with_its_host(member))
        try:
            await reply(handle.start.remote(), name, "start")
            await self._has_weights.wait()
            loaded = None
            while (current := self._load) is not loaded:
                assert current is not None
                await current(name, handle)
                loaded = current
        except BaseException as error:  # a start that is cancelled must not leave a process either
            end(handle)
            if isinstance(error, WeightMismatchError):  # the next engine would not hold the learner's weights either
                self._pool.fail(error)
            raise
        finally:
            watching.cancel()

    async def _end_with_its_host(self, member: Member[Any]) -> None:
        """End a worker whose host is lost before it has been made: Ray would keep it for when the host is back."""
        if self._rooms is not None:
            await self._rooms.lost(member.index)
            end(member.worker)

    async def _let_go(self, member: Member[Any]) -> None:
        """Shut the engine of a worker down that has left."""
        member.caller.close()
        try:
            with suppress(WorkerError):  # an engine that does not answer, or fails, is ended with its actor
                await reply(member.worker.stop.remote(), member.name, "stop", LET_GO_S)
        finally:
            end(member.worker)
