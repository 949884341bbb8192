"""The caller's side of batched calls."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol
from uuid import uuid4

from ray.actor import ActorHandle

from actors.calls.chunks import Packing, StoredItem
from actors.calls.messages import Answer, Call, CallFailedError
from rollout.unawaited import forget


class Caller(Protocol):
    """Calls methods of one worker."""

    def call(self, method: str, *arguments: Any, has_bulk: bool = False) -> Awaitable[Any]:
        """Begin a call of an asyncio method; awaited, it is the answer.

        Args:
            method: its name.
            arguments: what it is given. A :class:`StoredItem` is fetched where the worker is.
            has_bulk: the method answers with two things, and the answer here is the first with a reference to the
                second, which stays in the object store.
        """
        ...

    def close(self) -> None:
        """Wait for nothing any more."""
        ...


def caller_of(worker: Any) -> Caller:
    """How to call a worker: in batches if it is an actor of Ray, of a class with
    :class:`actors.calls.batched_actor.BatchedActor`; directly if it is an object of this process."""
    return BatchedCaller(worker) if isinstance(worker, ActorHandle) else DirectCaller(worker)


class DirectCaller:
    """One call a call.

    Args:
        worker: has ``worker.method.remote(...)``.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    async def call(self, method: str, *arguments: Any, has_bulk: bool = False) -> Any:
        """See :meth:`Caller.call`."""
        function = getattr(self._worker, method)
        if not has_bulk:
            return await function.remote(*arguments)
        small, bulk = function.options(num_returns=2).remote(*arguments)
        return await small, bulk

    def close(self) -> None:
        """Nothing is kept open between calls."""


class BatchedCaller:
    """Calls that are made in one round of the event loop travel together, and answers as they come.

    Who wakes whom: the first call of a round asks the loop to send when the round is over. As long as calls are open a
    task has one ``collect`` at the worker, and hands each answer to whoever waits for it. When the worker is lost that
    task hears of it, and everybody who waits.

    Args:
        worker: handle of the actor.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._name = uuid4().hex
        self._numbers = itertools.count()
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._outgoing: list[Call] = []
        self._collecting: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[None]] = set()

    def call(self, method: str, *arguments: Any, has_bulk: bool = False) -> asyncio.Future[Any]:
        """See :meth:`Caller.call`.

        Raises:
            CallFailedError: (when awaited) the method raised.
            RayError: (when awaited) the worker or data of the call are lost.
        """
        loop = asyncio.get_running_loop()
        number, answer = next(self._numbers), loop.create_future()
        answer.add_done_callback(lambda _: self._open.pop(number, None))  # also when nobody waits for it any more
        self._open[number] = answer
        if not self._outgoing:
            loop.call_soon(self._send)
        self._outgoing.append(Call(number, method, arguments, has_bulk))
        return answer

    def close(self) -> None:
        """Cancel everything that is open."""
        for task in (*self._sending, *([self._collecting] if self._collecting else [])):
            task.cancel()
        for answer in list(self._open.values()):
            answer.cancel()

    def _send(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        packing = Packing()
        calls = [
            call._replace(arguments=tuple(packing.argument(argument) for argument in call.arguments))
            for call in outgoing
            if call.number in self._open
        ]
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._deliver(calls, packing.chunks))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        if self._collecting is None or self._collecting.done():
            self._collecting = loop.create_task(self._collect())

    async def _deliver(self, calls: Sequence[Call], chunks: Sequence[Any]) -> None:
        try:
            await self._worker.submit.remote(self._name, calls, *chunks)
        except Exception as error:  # the worker is lost, or data of these calls, or they cannot be sent
            self._fail([call.number for call in calls], error)

    async def _collect(self) -> None:
        try:
            while self._open:
                answers, bulk = self._worker.collect.options(num_returns=2).remote(self._name)
                for answer in await answers:
                    self._hand_over(answer, bulk)
        except Exception as error:  # whatever it is, nobody else will hear of it
            self._fail(list(self._open), error)

    def _hand_over(self, answer: Answer, bulk: Any) -> None:
        waiting = self._open.get(answer.number)
        if waiting is None or waiting.done():  # it was given up
            return
        if answer.error is not None:
            waiting.set_exception(CallFailedError(answer.error.restored()))
            waiting.add_done_callback(forget)
        elif answer.bulk is not None:
            waiting.set_result((answer.value, StoredItem(bulk, answer.bulk)))
        else:
            waiting.set_result(answer.value)

    def _fail(self, numbers: Sequence[int], error: Exception) -> None:
        for number in numbers:
            waiting = self._open.get(number)
            if waiting is not None and not waiting.done():
                waiting.set_exception(error)
                waiting.add_done_callback(forget)
