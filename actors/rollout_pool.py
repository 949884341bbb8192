"""All rollout workers as one: requests go to the least busy, weights to all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from rollout.trajectory import SampleRequest, Trajectory, TrajectorySummary


class RolloutPool:
    """Dispatches requests over the actors of :class:`actors.rollout_worker.RolloutWorker`.

    Args:
        workers: actor handles.
        max_requests_per_worker: requests open at one worker at the same time; more wait here.
    """

    def __init__(self, workers: list[Any], max_requests_per_worker: int) -> None:
        self.workers = workers
        self._limit = max_requests_per_worker
        self._open = [0] * len(workers)
        self._freed = asyncio.Condition()

    async def sample(self, request: SampleRequest) -> tuple[TrajectorySummary, Any]:
        """One training trajectory: its summary, and a reference to the tokens in the object store."""

        async def call(worker: Any) -> tuple[TrajectorySummary, Any]:
            summary_ref, trajectory_ref = worker.sample.options(num_returns=2).remote(request)
            return await summary_ref, trajectory_ref

        return await self._on_least_busy(call)

    async def answer(self, request: SampleRequest) -> Trajectory:
        """One greedy response."""

        async def call(worker: Any) -> Trajectory:
            return await worker.answer.remote(request)

        return await self._on_least_busy(call)

    async def _on_least_busy(self, call: Callable[[Any], Any]) -> Any:
        async with self._freed:
            await self._freed.wait_for(lambda: min(self._open) < self._limit)
            index = self._open.index(min(self._open))
            self._open[index] += 1
        try:
            return await call(self.workers[index])
        finally:
            async with self._freed:
                self._open[index] -= 1
                self._freed.notify()

    async def every(self, method: str, *arguments: Any) -> list[Any]:
        """Call ``method`` on all workers and wait for all results."""
        return await asyncio.gather(*(getattr(worker, method).remote(*arguments) for worker in self.workers))
