"""The actor's side of batched calls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from actors.calls.chunks import unpacked
from actors.calls.messages import Answer, Call, RaisedError


class BatchedActor:
    """Mixed into an asyncio actor: its methods can be called many at a time, and answer as each is done.

    A caller sends calls with :meth:`submit` and always has one :meth:`collect` open, which is answered as soon as there
    is anything to answer with. So what is alone on its way travels at once, and what is ready meanwhile travels
    together.

    There is one caller at a time. A new one takes the place of the one before, which must be gone: the calls that it
    has left are cancelled.
    """

    _outbox: _Outbox | None = None
    _gone: frozenset[str] = frozenset()

    async def submit(self, caller: str, calls: Sequence[Call], *chunks: Any) -> None:
        """Begin calls.

        Args:
            caller: name of who calls, new for each.
            calls: see :class:`actors.calls.messages.Call`.
            chunks: what the places among the calls' arguments refer to.
        """
        outbox = self._outbox_of(caller)
        for call in calls:
            outbox.begin(call.number, self._answer(outbox, call, chunks))

    async def collect(self, caller: str) -> tuple[list[Answer], list[Any]]:
        """What is done since the last time, as soon as something is: answers, and all bulk that belongs to them."""
        return await self._outbox_of(caller).take()

    def _outbox_of(self, caller: str) -> _Outbox:
        if self._outbox is None or self._outbox.caller != caller:
            if caller in self._gone:
                raise RuntimeError("another caller has taken the place of this one")
            if self._outbox is not None:
                self._gone |= {self._outbox.caller}
                self._outbox.close()
            self._outbox = _Outbox(caller)
        return self._outbox

    async def _answer(self, outbox: _Outbox, call: Call, chunks: Sequence[Any]) -> None:
        try:
            value = await getattr(self, call.method)(*(unpacked(argument, chunks) for argument in call.arguments))
            if call.has_bulk:
                value, bulk = value
                answer = Answer(call.number, value, bulk=outbox.store(bulk))
            else:
                answer = Answer(call.number, value)
        except Exception as error:  # the caller's to judge
            answer = Answer(call.number, error=RaisedError.of(error))
        outbox.put(answer)


class _Outbox:
    """Calls of one caller that run, and answers that it has not collected."""

    def __init__(self, caller: str) -> None:
        self.caller = caller
        self._running: set[asyncio.Task[None]] = set()
        self._answers: list[Answer] = []
        self._bulk: list[Any] = []
        self._filled = asyncio.Event()

    def begin(self, number: int, answering: Any) -> None:
        task = asyncio.get_running_loop().create_task(answering, name=f"call {number}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def store(self, bulk: Any) -> int:
        self._bulk.append(bulk)
        return len(self._bulk) - 1

    def put(self, answer: Answer) -> None:
        self._answers.append(answer)
        self._filled.set()

    async def take(self) -> tuple[list[Answer], list[Any]]:
        await self._filled.wait()
        self._filled.clear()
        answers, self._answers = self._answers, []
        bulk, self._bulk = self._bulk, []
        return answers, bulk

    def close(self) -> None:
        for task in self._running:
            task.cancel()
        self._filled.set()
