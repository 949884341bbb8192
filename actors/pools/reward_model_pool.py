"""The reward model workers as one scorer, used inside a reward service actor."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from ray.exceptions import RayActorError, RayTaskError

from rollout.rewards.base import RewardUnavailable
from rollout.trajectory import Message

log = logging.getLogger(__name__)

ASK_AGAIN_S = 1.0


class RewardModelClient:
    """Sends each conversation to the least busy worker. Can be sent to another process before it is used.

    A worker that dies is started again by Ray. What it was scoring is unavailable, which is counted and called again;
    those calls wait until a worker is there.

    Args:
        workers: handles of :class:`actors.workers.reward_model_worker.RewardModelWorker`, all of one model.
    """

    def __init__(self, workers: Sequence[Any]) -> None:
        self._workers = tuple(workers)
        self._num_open = [0] * len(self._workers)
        self._returning: dict[int, asyncio.Task[None]] = {}

    async def ready(self) -> None:
        """Answers once every worker has loaded its model. Raises why one could not."""
        await asyncio.gather(*(_answer(worker.ready.remote()) for worker in self._workers))

    async def score(self, messages: Sequence[Message]) -> float:
        """See :class:`rollout.rewards.model.Scorer`."""
        index = await self._least_busy()
        self._num_open[index] += 1
        try:
            score: float = await _answer(self._workers[index].score.remote(tuple(messages)))
        except RayActorError as error:
            self._await_return(index)
            raise RewardUnavailable(f"a reward model worker was lost: {_first_line(error)}") from None
        finally:
            self._num_open[index] -= 1
        return score

    async def _least_busy(self) -> int:
        """Index of a worker that is there; waits for one."""
        while len(self._returning) == len(self._workers):
            await asyncio.wait(self._returning.values(), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)  # let the callback that takes it off the list run
        present = [index for index in range(len(self._workers)) if index not in self._returning]
        return min(present, key=self._num_open.__getitem__)

    def _await_return(self, index: int) -> None:
        if index not in self._returning:
            log.warning("reward model worker %d was lost; Ray starts it again", index)
            task = asyncio.get_running_loop().create_task(self._returned(index))
            self._returning[index] = task
            task.add_done_callback(lambda _: self._returning.pop(index))

    async def _returned(self, index: int) -> None:
        """Wait until a worker answers again, be it with an error: whoever asks it next will see that."""
        while True:
            try:
                await _answer(self._workers[index].ready.remote())
                return
            except RayActorError:
                await asyncio.sleep(ASK_AGAIN_S)
            except Exception:  # such as a model that cannot be loaded
                return


async def _answer(reference: Any) -> Any:
    """What an actor answered; raises what it raised, without Ray's wrapping."""
    try:
        return await reference
    except RayTaskError as error:
        raise (error.cause or error) from None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
