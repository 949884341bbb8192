"""All reward service actors as one: no call waits permanently, and a worker that hangs or dies is replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from actors.faults import HostLost, NoWorkerLeft, WorkerError, WorkerHung, WorkerLost
from actors.pools.loss import end, reply
from actors.pools.members import Member, PoolObserver, Replacing
from actors.pools.pool import Pool
from actors.recovery import RecoveryConfig
from rollout.component import UserError
from rollout.rewards.errors import RewardErrorKind
from rollout.scoring.record import RewardRecord
from rollout.scoring.report import RewardCounts
from rollout.trajectory import Prompt, Trajectory
from rollout.unawaited import forget

MAX_CAUSE = 300
"""Characters of a lost worker's last words that are kept in a record."""


class RewardPool:
    """Dispatches trajectories over actors of :class:`rollout.scoring.service.RewardService`.

    Adds to :class:`actors.pools.pool.Pool` what becomes of a score whose worker was lost: the trajectory is sent to
    another worker, where it is alone. If that one hangs as well it is the trajectory's fault, and it comes back as an
    error. A worker that is worn out, by calls that hang in its threads, is replaced.

    Args:
        workers: actor handles.
        create: makes the actor that takes the place of worker ``index``. None: lost workers are not replaced.
        timeout_s: time in which a worker has an outcome for a trajectory, retries included
            (:attr:`rollout.config.RewardConfig.deadline_s`); ``recovery.reward_grace_s`` is added.
        error_reward: observed score of a trajectory that was lost with its workers, or ``drop``.
        max_requests_per_worker: trajectories at one worker at the same time; more wait here.
        observer: told of every worker that is lost or replaced.
        recovery: deadlines and limits; those of the rewards begin with ``reward_`` or ``max_reward_``.
    """

    def __init__(
        self,
        workers: Sequence[Any],
        create: Callable[[int], Any] | None,
        timeout_s: float,
        error_reward: float | str = "drop",
        max_requests_per_worker: int = 64,
        observer: PoolObserver | None = None,
        recovery: RecoveryConfig | None = None,
    ) -> None:
        self._recovery = recovery or RecoveryConfig()
        replacing = None
        if create is not None:
            replacing = Replacing(create, None, self._recovery.max_worker_losses)
        self._pool: Pool[Any] = Pool("reward", workers, max_requests_per_worker, replacing, observer=observer)
        self._deadline_s = timeout_s + self._recovery.reward_grace_s
        self._error_reward = None if error_reward == "drop" else float(error_reward)
        self._counts, self._num_replaced_before = RewardCounts(), 0

    @property
    def num_replaced(self) -> int:
        """Workers replaced so far."""
        return self._pool.num_replaced

    async def score(self, prompt: Prompt, trajectory: Any) -> RewardRecord:
        """Observed and clean score; ``trajectory`` may be a reference.

        Raises:
            DataLost: the trajectory cannot be fetched any more.
            WorkersKeepDying: workers were lost more than ``recovery.max_worker_losses`` times in a row.
            UserError: a worker cannot make its rewards.
        """
        record = await self._call("score", prompt, trajectory)
        self._counts.add(record)
        return record

    async def clean_score(self, prompt: Prompt, trajectory: Any) -> RewardRecord:
        """Clean score only. Raises what :meth:`score` raises."""
        return await self._call("clean_score", prompt, trajectory)

    def take_metrics(self) -> dict[str, float]:
        """Outcomes of :meth:`score` and replaced workers since the last call."""
        self._counts.num_replaced_workers = self.num_replaced - self._num_replaced_before
        self._num_replaced_before = self.num_replaced
        return self._counts.take()

    async def _call(self, method: str, prompt: Prompt, trajectory: Any) -> RewardRecord:
        losses: list[WorkerLost] = []
        while len(losses) < self._recovery.max_reward_losses and _hangs(losses) < self._recovery.max_reward_hangs:
            try:
                return await self._ask(method, prompt, trajectory, alone=bool(losses))
            except HostLost:
                continue  # the trajectory had no part in it
            except WorkerLost as lost:
                losses.append(lost)
            except NoWorkerLeft:
                return await self._lost_record(method, trajectory, losses, "no reward worker is left")
        return await self._lost_record(method, trajectory, losses)

    async def _ask(self, method: str, prompt: Prompt, trajectory: Any, alone: bool) -> RewardRecord:
        """One call of one worker.

        Raises:
            WorkerLost: the worker could not be started, died, or did not answer in time.
            UserError: a reward cannot be made there.
        """
        async with self._pool.place(prompt.prompt_id, alone) as member:
            try:
                await self._started(member)
                call = member.caller.call(method, prompt, trajectory)
                record: RewardRecord = await reply(call, member.name, method, self._deadline_s)
            except WorkerLost as lost:
                self._lose(member, self._in_words(lost))
                raise
            self._pool.request_finished()
            if record.error_kind is RewardErrorKind.INFRASTRUCTURE and await self._is_worn_out(member):
                self._lose(member, "too many of its calls hang")
            return record

    async def _started(self, member: Member[Any]) -> None:
        """Wait until a worker has built its rewards. All of its first requests wait for the same answer.

        Raises:
            WorkerLost: it could not; whatever the reason is, this worker cannot be used.
            UserError: it could not because of a mistake of the user's; the pool is given up.
        """
        if member.started is None:
            ready = reply(member.worker.ready.remote(), member.name, "ready", self._recovery.reward_start_timeout_s)
            member.started = asyncio.get_running_loop().create_task(ready)
            member.started.add_done_callback(forget)
        try:
            await asyncio.shield(member.started)
        except WorkerError as error:
            raise WorkerLost(error.worker, "ready", error.reason) from error
        except UserError as error:
            self._pool.fail(error)  # a worker in the place of this one would only make the same mistake
            raise

    def _lose(self, member: Member[Any], cause: str) -> None:
        if self._pool.lose(member, cause):
            end(member.worker)

    async def _is_worn_out(self, member: Member[Any]) -> bool:
        """Whether so much hangs in a worker's process that a new one is better."""
        call = member.worker.is_worn_out.remote()
        try:
            worn_out: bool = await reply(call, member.name, "is_worn_out", self._recovery.reward_health_timeout_s)
        except WorkerHung:  # busy; if it hangs, a call's deadline will tell
            return False
        except WorkerLost:
            return True
        return worn_out

    def _in_words(self, lost: WorkerLost) -> str:
        """What became of a worker, as records and events tell it."""
        if isinstance(lost, WorkerHung):
            return f"no score within {self._deadline_s:g} s"
        if lost.method == "ready":
            return f"a reward worker could not be started: {lost.reason[:MAX_CAUSE]}"
        return f"the reward worker's {lost.reason.removeprefix('its ')[:MAX_CAUSE]}"

    async def _lost_record(
        self, method: str, trajectory: Any, losses: Sequence[WorkerLost], *further: str
    ) -> RewardRecord:
        """Of a trajectory that was lost with its workers."""
        reasons = [*map(self._in_words, losses), *further]
        text = "; then ".join(dict.fromkeys(reasons))
        if len(losses) > 1 and _hangs(losses) == len(reasons):
            text = f"{reasons[0]} ({'twice' if len(losses) == 2 else f'{len(losses)} times'})"
        known: Trajectory = trajectory
        if not isinstance(trajectory, Trajectory):
            known = await reply(trajectory, "reward", method)
        observed = self._error_reward if method == "score" else None
        record = RewardRecord.failed(known, text, RewardErrorKind.INFRASTRUCTURE, observed)
        return replace(record, num_retries=max(0, len(reasons) - 1))


def _hangs(losses: Sequence[WorkerLost]) -> int:
    return sum(isinstance(lost, WorkerHung) for lost in losses)
