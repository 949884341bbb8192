"""All reward service actors as one: no call waits for ever, and a worker that hangs or dies is replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayActorError

from actors.pools.loss import PoolObserver
from rollout.rewards.errors import RewardErrorKind
from rollout.scoring.record import RewardRecord
from rollout.scoring.report import RewardCounts
from rollout.trajectory import Prompt, Trajectory

MAX_ATTEMPTS = 3
"""Workers that a trajectory may be lost with before it counts as an error."""
MAX_HANGS = 2
"""Of these, workers that gave no answer in time. The second time it was the only trajectory there."""
GRACE_S = 10.0
"""A worker ends what takes too long by itself; it counts as hung if it has not done so after this much more time."""
START_TIMEOUT_S = 300.0
"""Longest time until a new worker's process has imported and built the rewards."""
HEALTH_TIMEOUT_S = 10.0


@dataclass(eq=False, slots=True)
class _Worker:
    """One actor and what is asked of it at the moment."""

    index: int
    handle: Any
    num_open: int = 0
    is_exclusive: bool = False
    ready: asyncio.Task[None] | None = None


class _Lost(Exception):
    """A call was lost with its worker."""

    def __init__(self, reason: str, hung: bool = False) -> None:
        super().__init__(reason)
        self.hung = hung


class RewardPool:
    """Dispatches trajectories over actors of :class:`rollout.scoring.service.RewardService`.

    A trajectory whose worker is lost is sent to another one, where it is alone: if that one hangs as well it is the
    trajectory's fault, and it comes back as an error.

    Args:
        workers: actor handles.
        create: makes the actor that takes the place of worker ``index``. None: lost workers are not replaced.
        timeout_s: time in which a worker has an outcome for a trajectory, retries included
            (:attr:`rollout.config.RewardConfig.deadline_s`); :data:`GRACE_S` is added.
        error_reward: observed score of a trajectory that was lost with its workers, or ``drop``.
        max_requests_per_worker: trajectories at one worker at the same time; more wait here.
        observer: told of every worker that is replaced.
    """

    def __init__(
        self,
        workers: Sequence[Any],
        create: Callable[[int], Any] | None,
        timeout_s: float,
        error_reward: float | str = "drop",
        max_requests_per_worker: int = 64,
        observer: PoolObserver | None = None,
    ) -> None:
        self._workers = [_Worker(index, handle) for index, handle in enumerate(workers)]
        self._create = create
        self._deadline_s = timeout_s + GRACE_S
        self._error_reward = None if error_reward == "drop" else float(error_reward)
        self._limit = max_requests_per_worker
        self._observer = observer or PoolObserver()
        self._num_suspects = 0
        self._changed = asyncio.Condition()
        self._counts = RewardCounts()
        self.replaced = 0
        """Workers replaced so far."""

    async def score(self, prompt: Prompt, trajectory: Any) -> RewardRecord:
        """Observed and clean score; ``trajectory`` may be a reference. Raises only what fetching it raises."""
        record = await self._call("score", prompt, trajectory)
        self._counts.add(record)
        return record

    async def clean_score(self, prompt: Prompt, trajectory: Any) -> RewardRecord:
        """Clean score only."""
        return await self._call("clean_score", prompt, trajectory)

    def take_metrics(self) -> dict[str, float]:
        """Outcomes of :meth:`score` and replaced workers since the last call."""
        return self._counts.take()

    async def _call(self, method: str, prompt: Prompt, trajectory: Any) -> RewardRecord:
        losses: list[_Lost] = []
        while len(losses) < MAX_ATTEMPTS and sum(lost.hung for lost in losses) < MAX_HANGS:
            worker = await self._acquire(alone=bool(losses))
            if worker is None:
                losses.append(_Lost("no reward worker is left"))
                break
            try:
                record = await self._ask(worker, method, prompt, trajectory)
            except _Lost as lost:
                losses.append(lost)
                await self._replace(worker, str(lost))
                continue
            finally:
                await self._release(worker)
            if record.error_kind is RewardErrorKind.INFRASTRUCTURE and await self._is_worn_out(worker):
                await self._replace(worker, "too many of its calls hang")
            return record
        return await self._lost_record(method, trajectory, losses)

    async def _ask(self, worker: _Worker, method: str, prompt: Prompt, trajectory: Any) -> RewardRecord:
        """One call of one worker.

        Raises:
            _Lost: the worker could not be started, died, or did not answer in time.
        """
        try:
            if worker.ready is None:
                worker.ready = asyncio.ensure_future(_result(worker.handle.ready.remote()))
            await asyncio.wait_for(asyncio.shield(worker.ready), START_TIMEOUT_S)
        except Exception as error:  # whatever it is, this worker cannot be used
            raise _Lost(f"a reward worker could not be started: {_cause(error)}") from None
        answer = asyncio.ensure_future(_result(getattr(worker.handle, method).remote(prompt, trajectory)))
        try:
            done, _ = await asyncio.wait({answer}, timeout=self._deadline_s)
            if not done:
                raise _Lost(f"no score within {self._deadline_s:g} s", hung=True)
            record: RewardRecord = answer.result()
        except RayActorError as error:
            raise _Lost(f"the reward worker's process died: {_cause(error)}") from None
        finally:
            answer.cancel()
            answer.add_done_callback(_forget)
        return record

    async def _acquire(self, alone: bool) -> _Worker | None:
        """A place at the least busy worker, or a whole worker; None if there is no worker."""
        found: list[_Worker] = []

        def find() -> bool:
            if not self._workers:
                return True
            least = min(self._workers, key=lambda worker: (worker.is_exclusive, worker.num_open))
            if alone:
                free = least.num_open == 0
            else:  # those who wait for a whole worker come first
                free = not self._num_suspects and not least.is_exclusive and least.num_open < self._limit
            if free:
                found.append(least)
            return free

        async with self._changed:
            self._num_suspects += alone
            try:
                await self._changed.wait_for(find)
            finally:
                self._num_suspects -= alone
                self._changed.notify_all()
            if not found:
                return None
            found[0].num_open += 1
            found[0].is_exclusive = alone
            return found[0]

    async def _release(self, worker: _Worker) -> None:
        async with self._changed:
            worker.num_open -= 1
            worker.is_exclusive = False
            self._changed.notify_all()

    async def _replace(self, worker: _Worker, cause: str) -> None:
        """End a worker's process and put a new one into its place, unless that has been done."""
        async with self._changed:
            if worker not in self._workers:
                return
            self._workers.remove(worker)
            with suppress(Exception):  # it is dead already
                ray.kill(worker.handle, no_restart=True)
            if self._create is not None:
                handle = self._create(worker.index)
                self._workers.append(_Worker(worker.index, handle))
                self.replaced += 1
                self._counts.num_replaced_workers += 1
                self._observer.worker_event(f"reward-{worker.index}", f"replaced: {cause}")
                self._observer.worker_started(f"reward-{worker.index}", handle)
            self._changed.notify_all()

    async def _is_worn_out(self, worker: _Worker) -> bool:
        """Whether so much hangs in a worker's process that a new one is better."""
        try:
            worn_out: bool = await asyncio.wait_for(_result(worker.handle.is_worn_out.remote()), HEALTH_TIMEOUT_S)
        except RayActorError:
            return True
        except TimeoutError:  # busy; if it hangs, a call's deadline will tell
            return False
        return worn_out

    async def _lost_record(self, method: str, trajectory: Any, losses: Sequence[_Lost]) -> RewardRecord:
        reasons = [str(lost) for lost in losses]
        hung_always = len(losses) == MAX_HANGS and all(lost.hung for lost in losses)
        text = f"{reasons[0]} (twice)" if hung_always else "; then ".join(dict.fromkeys(reasons))
        known: Trajectory = trajectory if isinstance(trajectory, Trajectory) else await trajectory
        observed = self._error_reward if method == "score" else None
        lost = RewardRecord.failed(known, text, RewardErrorKind.INFRASTRUCTURE, observed)
        return replace(lost, num_retries=len(losses) - 1)


async def _result(reference: Any) -> Any:
    return await reference


def _forget(task: asyncio.Task[Any]) -> None:
    """Look at the exception of a call that nobody waits for, so that asyncio does not report it."""
    if not task.cancelled():
        task.exception()


def _cause(error: BaseException) -> str:
    """The first lines of what Ray says, on one line."""
    text = " ".join(str(error).split())
    return text[:300] or type(error).__name__
