"""Objects of this process behind the interface of actor handles."""

from __future__ import annotations

import asyncio

import pytest

from actors.pools.inline import InlineActor
from actors.pools.loss import reply
from actors.pools.ranks import Ranks


class Worker:
    def __init__(self) -> None:
        self.calls: list[int] = []

    def add(self, number: int, *, twice: bool = False) -> int:
        self.calls.append(number)
        return 2 * number if twice else number

    async def pair(self, number: int) -> tuple[int, list[int]]:
        await asyncio.sleep(0)
        return number, [number]

    async def total(self, numbers: list[int], further: int) -> int:
        return sum(numbers) + further

    def fail(self) -> None:
        raise KeyError("no")

    async def wait(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.calls.append(-1)
            raise


async def test_plain_and_async_methods_answer() -> None:
    handle = InlineActor(Worker())
    assert await handle.add.remote(3, twice=True) == 6
    assert await handle.pair.remote(4) == (4, [4])


async def test_parts_of_an_answer_are_references_that_calls_take() -> None:
    handle = InlineActor(Worker())
    first, second = handle.pair.options(num_returns=2).remote(5)
    assert await handle.total.remote(second, handle.add.remote(2)) == 7
    assert await first == 5


async def test_calls_run_in_the_order_in_which_they_were_made() -> None:
    worker = Worker()
    handle = InlineActor(worker)
    calls = [handle.add.options(concurrency_group="io").remote(number) for number in range(5)]
    await asyncio.gather(*reversed(calls))
    assert worker.calls == list(range(5))


async def test_an_error_is_raised_where_the_answer_is_awaited() -> None:
    handle = InlineActor(Worker())
    with pytest.raises(KeyError, match="no"):
        await reply(handle.fail.remote(), "worker-0", "fail")
    with pytest.raises(KeyError, match="no"):
        await Ranks([handle], "rank").call("fail", timeout_s=5.0)


async def test_who_gives_up_an_answer_cancels_the_call() -> None:
    worker = Worker()
    asking = asyncio.ensure_future(reply(InlineActor(worker).wait.remote(), "worker-0", "wait"))
    await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.sleep(0)
    assert worker.calls == [-1]


def test_a_method_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = InlineActor(Worker()).nothing
