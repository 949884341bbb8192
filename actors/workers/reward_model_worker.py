"""Holds a reward model and scores conversations in batches."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rollout.rewards.base import Abstain, RewardUnavailable
from rollout.trajectory import Message

if TYPE_CHECKING:
    from learner.reward_model.model import Device, Dtype, RewardModel

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """How one worker serves.

    Attributes:
        path: folder or hub id of the model.
        max_tokens: of longer conversations the reward abstains.
        batch_size: most conversations in one forward pass.
        max_wait_ms: how long an idle worker waits for a batch to fill.
        dtype: of the model's weights.
        device: where they are.
        timeout_s: longest time for one forward pass; then the process is taken for hung and ends itself.
    """

    path: str
    max_tokens: int
    batch_size: int
    max_wait_ms: float
    dtype: Dtype
    device: Device
    timeout_s: float


class Batcher:
    """Gathers single requests into batches; while one batch is computed the next one fills.

    Args:
        compute: scores of a batch, in its order.
        batch_size: most requests in one batch.
        max_wait_s: how long the first request of a batch waits for others.
    """

    def __init__(
        self,
        compute: Callable[[Sequence[list[int]]], Awaitable[Sequence[float]]],
        batch_size: int,
        max_wait_s: float,
    ) -> None:
        self._compute, self._batch_size, self._max_wait_s = compute, batch_size, max_wait_s
        self._queue: asyncio.Queue[tuple[list[int], asyncio.Future[float]]] = asyncio.Queue()
        self._runner: asyncio.Task[None] | None = None

    async def score(self, row: list[int]) -> float:
        """The score of one row. Raises what computing its batch has raised."""
        if self._runner is None or self._runner.done():
            self._runner = asyncio.get_running_loop().create_task(self._run())
        answer: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((row, answer))
        return await answer

    async def _run(self) -> None:
        while True:
            batch = await self._next_batch()
            if not batch:
                continue
            try:
                scores = await self._compute([row for row, _ in batch])
            except Exception as error:  # whoever asked is told; the next batch may work
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), score in zip(batch, scores, strict=True):
                if not answer.done():
                    answer.set_result(score)

    async def _next_batch(self) -> list[tuple[list[int], asyncio.Future[float]]]:
        """Waits for a request, then for more; requests that were given up meanwhile are left out."""
        batch = [await self._queue.get()]
        deadline = asyncio.get_running_loop().time() + self._max_wait_s
        while len(batch) < self._batch_size:
            if self._queue.empty():
                left = deadline - asyncio.get_running_loop().time()
                if left <= 0.0:
                    break
                try:
                    batch.append(await asyncio.wait_for(self._queue.get(), left))
                except TimeoutError:
                    break
            else:
                batch.append(self._queue.get_nowait())
        return [(row, answer) for row, answer in batch if not answer.done()]


class RewardModelWorker:
    """An asyncio actor, or a scorer inside the process that asks. The model is loaded when it is first needed.

    Args:
        options: which model, and how it is served.
        exit_when_hung: end the process when a forward pass takes too long, so that Ray starts the actor again; a thread
            cannot be ended. Otherwise those who wait are told.
    """

    def __init__(self, options: ServingOptions, exit_when_hung: bool = True) -> None:
        self._options, self._exit_when_hung = options, exit_when_hung
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reward-model")
        self._loading: asyncio.Task[RewardModel] | None = None
        self._batcher = Batcher(self._forward, options.batch_size, options.max_wait_ms / 1000.0)

    async def ready(self) -> None:
        """Answers once the model is loaded."""
        await self._model()

    async def score(self, messages: Sequence[Message]) -> float:
        """The model's logit for a conversation.

        Raises:
            Abstain: it is longer than ``max_tokens``.
            RewardUnavailable: the forward pass hangs, and this process is not to end for it.
        """
        from learner.reward_model.model import TooLong

        model = await self._model()
        try:
            row = model.encode(messages)
        except TooLong as error:
            raise Abstain(str(error)) from error
        return await self._batcher.score(row)

    async def _model(self) -> RewardModel:
        if self._loading is None or (self._loading.done() and self._loading.exception() is not None):
            self._loading = asyncio.get_running_loop().create_task(self._load())
        return await asyncio.shield(self._loading)

    async def _load(self) -> RewardModel:
        from learner.reward_model.model import RewardModel

        options = self._options

        def load() -> RewardModel:
            return RewardModel.load(options.path, options.max_tokens, options.dtype, options.device)

        return await asyncio.get_running_loop().run_in_executor(self._thread, load)

    async def _forward(self, rows: Sequence[list[int]]) -> Sequence[float]:
        """Scores of a batch, computed in the thread."""
        model = await self._model()
        computing = asyncio.get_running_loop().run_in_executor(self._thread, model.score, rows)
        done, _ = await asyncio.wait({computing}, timeout=self._options.timeout_s)
        if not done:
            late = f"a forward pass of {len(rows)} conversations takes over {self._options.timeout_s:g} s"
            log.error(late)
            if self._exit_when_hung:
                os._exit(1)
            raise RewardUnavailable(late)
        return computing.result()
