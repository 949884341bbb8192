"""Calls that travel together: each gets its own answer as soon as it is there, its own error, and its own bulk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from actors.calls.batched_actor import BatchedActor
from actors.calls.caller import BatchedCaller, DirectCaller, caller_of
from actors.calls.chunks import Packing, Place, StoredItem, unpacked
from actors.calls.messages import Call, RaisedError
from actors.faults import WorkerDied, WorkerError, WorkerHung
from actors.pools.inline import InlineActor
from actors.pools.loss import reply
from rollout.component import UserError


class Desk(BatchedActor):
    """An actor that notes how it was asked."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.gate = asyncio.Event()
        self.cancelled = 0

    async def submit(self, caller: str, calls: Sequence[Call], *chunks: Any) -> None:
        self.batches.append(len(calls))
        await super().submit(caller, calls, *chunks)

    async def double(self, number: int) -> int:
        return 2 * number

    async def wait(self, number: int) -> int:
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return number

    async def halves(self, text: str) -> tuple[str, list[str]]:
        return text[0], [text[1:]]

    async def joined(self, first: list[str], second: list[str]) -> str:
        return "".join(first + second)

    async def fail(self, error: BaseException) -> None:
        raise error


def connect(desk: Any) -> BatchedCaller:
    return BatchedCaller(InlineActor(desk))


async def test_calls_of_one_round_travel_together_and_each_gets_its_answer() -> None:
    desk = Desk()
    caller = connect(desk)
    answers = await asyncio.gather(*(caller.call("double", i) for i in range(100)))
    assert answers == [2 * i for i in range(100)]
    assert desk.batches == [100]
    assert await caller.call("double", 7) == 14  # and on, after a time with nothing to do
    assert desk.batches == [100, 1]


async def test_an_answer_does_not_wait_for_those_that_were_asked_with_it() -> None:
    desk = Desk()
    caller = connect(desk)
    slow = caller.call("wait", 1)
    assert await asyncio.wait_for(caller.call("double", 2), 10) == 4
    assert not slow.done()
    desk.gate.set()
    assert await slow == 1


@pytest.mark.parametrize(
    ("raised", "wanted"),
    [
        (ValueError("odd"), WorkerError),
        (TimeoutError("its own"), WorkerError),
        (UserError("no such file"), UserError),
        (type("EngineDeadError", (RuntimeError,), {})("gone"), WorkerDied),
        (type("Needy", (Exception,), {"__reduce__": lambda self: (int, ("x",))})("cannot be read"), WorkerError),
        (type("Closed", (Exception,), {"__reduce__": lambda self: 1 / 0})("cannot be written"), WorkerError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
async def test_an_error_is_told_as_if_it_had_come_alone(raised: BaseException, wanted: type[Exception]) -> None:
    caller = connect(Desk())
    fine, failing = caller.call("double", 1), caller.call("fail", raised)
    with pytest.raises(wanted) as told:
        await reply(failing, "desk-0", "fail")
    assert type(told.value) is wanted
    assert str(raised) in str(told.value)
    if wanted is WorkerError:
        assert f"{type(raised).__name__}: {raised}" in str(told.value)
    assert await fine == 2


async def test_a_method_that_is_not_there_is_the_call_s_error() -> None:
    caller = connect(Desk())
    with pytest.raises(WorkerError, match="AttributeError"):
        await reply(caller.call("no_such_method"), "desk-0", "no_such_method")
    assert await caller.call("double", 1) == 2


async def test_bulk_stays_behind_a_reference_and_reaches_the_next_call() -> None:
    caller = connect(Desk())
    found = await asyncio.gather(*(caller.call("halves", text, has_bulk=True) for text in ("abc", "def")))
    assert [small for small, _ in found] == ["a", "d"]
    (_, first), (_, second) = found
    assert isinstance(first, StoredItem)
    assert first.chunk is second.chunk, "what is ready together is stored together"
    assert await first == ["bc"]
    assert await second == ["ef"]
    assert await caller.call("joined", second, first) == "efbc"


async def test_each_chunk_is_sent_once_and_a_reference_by_itself_is_a_chunk() -> None:
    packing, chunk = Packing(), "reference"
    places = [packing.item(item) for item in (StoredItem(chunk, 3), "alone", StoredItem(chunk, 0))]
    assert packing.chunks == [chunk, "alone"]
    assert places == [Place(0, 3), Place(1, None), Place(0, 0)]
    assert [unpacked(place, ["abcd", "whole"]) for place in places] == ["d", "whole", "a"]
    assert unpacked("no place", []) == "no place"
    assert packing.argument("as it is") == "as it is"


class Lost:
    """A handle of an actor that dies once it has been asked."""

    def __init__(self, when: str) -> None:
        self._when = when
        self.submit = self._Method(self, "submit")
        self.collect = self._Method(self, "collect")

    class _Method:
        def __init__(self, owner: Lost, name: str) -> None:
            self._owner, self._name = owner, name

        def options(self, num_returns: int) -> Any:
            return self

        def remote(self, *arguments: Any) -> Any:
            answer = asyncio.ensure_future(self._owner.answer(self._name))
            return answer if self._name == "submit" else (answer, None)

    async def answer(self, name: str) -> Any:
        if name == self._when:
            raise ActorDiedError()
        if name == "collect":
            await asyncio.Event().wait()


@pytest.mark.parametrize("when", ["submit", "collect"])
async def test_everybody_who_waits_hears_of_a_lost_worker(when: str) -> None:
    caller = BatchedCaller(Lost(when))
    calls = [caller.call("double", i) for i in range(3)]
    for call in calls:
        with pytest.raises(WorkerDied):
            await reply(call, "desk-0", "double", 10.0)
    caller.close()


async def test_a_call_that_is_given_up_disturbs_nobody() -> None:
    desk = Desk()
    caller = connect(desk)
    with pytest.raises(WorkerHung):
        await reply(caller.call("wait", 1), "desk-0", "wait", 0.01)
    other = caller.call("wait", 2)
    desk.gate.set()
    assert await other == 2
    assert await caller.call("double", 3) == 6


async def test_a_new_caller_takes_the_place_of_one_that_is_gone() -> None:
    desk = Desk()
    old, new = connect(desk), connect(desk)
    left = old.call("wait", 1)
    assert await old.call("double", 1) == 2
    assert await new.call("double", 2) == 4
    await asyncio.sleep(0)
    assert desk.cancelled == 1, "nobody waits for what the old one has left"
    with pytest.raises(RuntimeError, match="another caller"):
        await old.call("double", 3)
    assert await new.call("double", 4) == 8
    old.close()
    assert left.cancelled() or left.done()


async def test_closing_leaves_no_task_behind() -> None:
    caller = connect(Desk())
    waiting = caller.call("wait", 1)
    await asyncio.sleep(0)
    before = {task for task in asyncio.all_tasks() if "BatchedCaller" in repr(task.get_coro())}
    assert before
    caller.close()
    await asyncio.gather(*before, return_exceptions=True)
    assert waiting.cancelled()
    assert not [task for task in asyncio.all_tasks() if "BatchedCaller" in repr(task.get_coro())]


def test_objects_of_this_process_are_called_directly() -> None:
    assert isinstance(caller_of(InlineActor(Desk())), DirectCaller)


def test_an_error_keeps_its_class_where_that_can_be_made() -> None:
    restored = RaisedError.of(UserError("bad key")).restored()
    assert isinstance(restored, UserError)
    assert str(restored) == "bad key"
