"""Places at workers: who gets the next one, who is woken for it, what becomes of it when a waiter is gone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress

import pytest
from ray import cloudpickle

from actors.faults import NoWorkerLeft, WorkersKeepDying
from actors.pools.members import Member, PoolObserver, Replacing
from actors.pools.pool import Pool
from tests.actors.pools.wakes import Counted


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


class Client:
    """Requests that hold their places until they are told to leave, in the order in which they got them."""

    def __init__(self, pool: Pool[str]) -> None:
        self.pool = pool
        self.served: list[str] = []
        self.at: dict[str, Member[str]] = {}
        self.leave: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, *names: str, alone: bool = False) -> None:
        """Send requests one after the other, and wait until each has a place or waits for one."""
        for name in names:
            self.leave[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._hold(name, alone))
            await asyncio.sleep(0)

    async def _hold(self, name: str, alone: bool) -> None:
        async with self.pool.place(name, alone) as member:
            self.served.append(name)
            self.at[name] = member
            await self.leave[name].wait()

    async def end(self, *names: str) -> None:
        for name in names:
            self.leave[name].set()
            await self.tasks[name]
        for _ in range(3):  # whoever got the place takes it
            await asyncio.sleep(0)

    async def drain(self) -> None:
        """Let everybody go who can."""
        async with asyncio.timeout(10):
            for event in self.leave.values():
                event.set()
            await asyncio.gather(*self.tasks.values(), return_exceptions=True)


async def test_the_least_busy_worker_is_asked_and_none_has_more_than_it_may() -> None:
    client = Client(Pool("worker", ["a", "b"], 2))
    await client.ask("1", "2", "3", "4", "5")
    assert [client.at[name].worker for name in "1234"] == ["a", "b", "a", "b"]
    assert client.served == ["1", "2", "3", "4"]
    await client.end("2")
    assert client.at["5"].worker == "b"
    assert [member.open for member in client.pool.members] == [["1", "3"], ["4", "5"]]
    await client.drain()
    assert [member.open for member in client.pool.members] == [[], []]


async def test_those_that_wait_are_served_in_their_order_and_newcomers_do_not_pass() -> None:
    client = Client(Pool("worker", ["a"], 1))
    await client.ask(*map(str, range(20)))
    for index in range(19):
        await client.end(str(index))
        await client.ask(f"late {index}")  # just when a place was handed over
    await client.end("19")
    assert client.served == [*map(str, range(20)), "late 0"]
    await client.drain()
    assert client.served[20:] == [f"late {index}" for index in range(19)]


async def test_a_freed_place_wakes_one_waiter_and_no_other() -> None:
    pool = Pool("worker", ["a"], 1)
    gate = asyncio.Event()

    async def request(index: int) -> None:
        async with pool.place(str(index)):
            if index == 0:
                await gate.wait()

    counted = [Counted(request(index)) for index in range(50)]
    tasks = [asyncio.ensure_future(one) for one in counted]
    for _ in range(3):
        await asyncio.sleep(0)
    assert [one.num_wakes for one in counted] == [0] * 50
    gate.set()
    await asyncio.gather(*tasks)
    assert [one.num_wakes for one in counted] == [1] * 50, "once each: the first by the gate, the others for a place"


async def test_a_waiter_that_gives_up_loses_no_place() -> None:
    client = Client(Pool("worker", ["a"], 1))
    async with client.pool.place("1"):
        await client.ask("2", "3", "4")
        client.tasks["2"].cancel()  # while it waits
    (member,) = client.pool.members
    assert member.open == ["3"], "the place was handed over, and 3 has not run since"
    client.tasks["3"].cancel()
    await until(lambda: client.served == ["4"])
    assert client.tasks["2"].cancelled() and client.tasks["3"].cancelled()
    await client.end("4")
    assert member.open == []
    await client.ask("5")
    assert client.served[-1] == "5"
    await client.drain()


async def test_no_place_is_lost_however_requests_come_and_go() -> None:
    rng = random.Random(0)
    pool = Pool("worker", ["a", "b", "c"], 2)
    num_open, num_done = dict.fromkeys("abc", 0), 0

    async def request(index: int, alone: bool) -> None:
        nonlocal num_done
        async with pool.place(str(index), alone) as member:
            num_open[member.worker] += 1
            try:
                assert num_open[member.worker] <= (1 if alone else 2)
                for _ in range(rng.randrange(4)):
                    await asyncio.sleep(0)
                    assert not alone or num_open[member.worker] == 1
            finally:
                num_open[member.worker] -= 1
        num_done += 1

    tasks = []
    for index in range(3000):
        tasks.append(asyncio.create_task(request(index, rng.random() < 0.2)))
        if rng.random() < 0.5:
            rng.choice(tasks[-20:]).cancel()
        if rng.random() < 0.3:
            await asyncio.sleep(0)
    async with asyncio.timeout(30):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {type(None), asyncio.CancelledError}
    assert num_done == results.count(None) > 1000
    assert [(member.open, member.is_exclusive) for member in pool.members] == [([], False)] * 3


async def test_who_must_be_alone_comes_first_and_has_nobody_beside() -> None:
    client = Client(Pool("worker", ["a"], 3))
    await client.ask("1", "2")
    await client.ask("alone 1", "alone 2", alone=True)
    await client.ask("3")
    assert client.served == ["1", "2"], "there is room for 3, but it would keep the worker busy"
    await client.end("1", "2")
    assert client.served[2:] == ["alone 1"]
    await client.end("alone 1")
    assert client.served[3:] == ["alone 2"]
    await client.end("alone 2")
    assert client.served[4:] == ["3"]
    await client.drain()


async def test_one_worker_is_kept_free_for_it_and_the_others_go_on() -> None:
    """However many requests come: one that must be alone is served as soon as those are done that it found."""
    client = Client(Pool("worker", ["a", "b"], 2))
    await client.ask("1", "2", "3", "4")
    await client.ask("alone", alone=True)
    await client.ask(*(f"more {index}" for index in range(10)))
    await client.end("1")
    assert client.served[4:] == [], "a is the least busy one now, and takes nothing more"
    await client.end("2")
    assert client.served[4:] == ["more 0"], "at b, of which a request has ended"
    assert client.at["more 0"].worker == "b"
    await client.end("3")
    assert client.served[5:] == ["alone"] and client.at["alone"].worker == "a"
    await client.end("alone")
    assert client.served[6:8] == ["more 1", "more 2"]
    await client.drain()
    assert len(client.served) == 15


async def test_without_those_that_must_be_alone_their_worker_is_free_again() -> None:
    client = Client(Pool("worker", ["a"], 2))
    await client.ask("1")
    await client.ask("alone", "suspect", alone=True)
    await client.ask("2")
    client.tasks["alone"].cancel()
    await asyncio.gather(client.tasks["alone"], return_exceptions=True)
    assert client.served == ["1"], "one more must be alone"
    client.pool.refuse("suspect", RuntimeError("set aside"))
    await until(lambda: client.served == ["1", "2"])
    with pytest.raises(RuntimeError, match="set aside"):
        await client.tasks["suspect"]
    await client.drain()


async def test_the_end_of_the_pool_wakes_everybody() -> None:
    client = Client(Pool("worker", ["a"], 1))
    await client.ask("1", "2", "3")
    await client.ask("alone", alone=True)
    client.pool.fail(RuntimeError("the first"))
    client.pool.fail(RuntimeError("the second"))
    for name in ("2", "3", "alone"):
        with pytest.raises(RuntimeError, match="the first"):
            await asyncio.wait_for(client.tasks[name], 5)
    with pytest.raises(RuntimeError, match="the first"):
        async with client.pool.place("4"):
            pass
    await client.end("1")  # what was served may end
    assert client.served == ["1"]


async def test_a_lost_worker_is_replaced_once_and_the_new_one_serves_who_waits() -> None:
    made: list[int] = []

    class Seen(PoolObserver):
        def __init__(self) -> None:
            self.events: list[str] = []

        def worker_event(self, worker: str, text: str) -> None:
            self.events.append(f"{worker} {text}")

        def worker_started(self, worker: str, handle: str) -> None:
            self.events.append(f"{worker} is {handle}")

    def create(index: int) -> str:
        made.append(index)
        return f"new {index}"

    seen = Seen()
    client = Client(Pool("worker", ["a", "b"], 1, Replacing(create, 1.0, 3), observer=seen))
    await client.ask("1", "2", "3")
    assert client.pool.lose(client.at["2"], "it fell over")
    assert not client.pool.lose(client.at["2"], "it fell over")
    await until(lambda: "3" in client.at)
    assert client.at["3"].worker == "new 1" and made == [1] and client.pool.num_replaced == 1
    assert seen.events == ["worker-1 lost: it fell over", "worker-1 replaced", "worker-1 is new 1"]
    await client.end("2")  # at the lost one: nobody gets its place
    assert [member.open for member in client.pool.members] == [["1"], ["3"]]
    await client.drain()


async def test_nothing_comes_between_the_last_step_of_bringing_up_and_serving() -> None:
    """Else new weights could be sent to all that serve while the newcomer has just loaded the ones before."""
    noticed: list[list[str]] = []
    pool: Pool[str]

    async def bring_up(member: Member[str]) -> None:
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(lambda: noticed.append([member.worker for member in pool.members]))

    pool = Pool("worker", ["a"], 1, Replacing(lambda index: "b", 5.0, 3), bring_up)
    pool.lose(pool.members[0], "gone")
    await until(lambda: bool(noticed))
    assert noticed == [["b"]]


async def test_workers_that_are_lost_in_a_row_end_the_pool_with_the_last_cause_first() -> None:
    num_starts = 0

    async def bring_up(member: Member[str]) -> None:
        nonlocal num_starts
        num_starts += 1
        raise OSError(f"no licence {num_starts}\nand more")

    client = Client(Pool("worker", ["a"], 1, Replacing(lambda index: "b", 5.0, 3), bring_up))
    await client.ask("1", "2")
    client.pool.lose(client.at["1"], "gone")
    with pytest.raises(WorkersKeepDying) as caught:
        await asyncio.wait_for(client.tasks["2"], 5)
    first = "worker-0 failed in start: OSError: no licence 3"
    assert str(caught.value).startswith(first)
    assert "worker-0 was lost 4 times and no request was finished in between" in str(caught.value)
    await client.drain()


async def test_a_finished_request_breaks_the_row() -> None:
    pool = Pool("worker", ["a"], 1, Replacing(str, 5.0, 1))
    for index in range(5):
        pool.lose(pool.members[0], f"gone {index}")
        await until(lambda: bool(pool.members))
        pool.request_finished()
    assert pool.failure is None and pool.num_replaced == 5
    for index in range(2):
        pool.lose(pool.members[0], f"gone {index}")
        await until(lambda: bool(pool.members) or pool.failure is not None)
    assert isinstance(pool.failure, WorkersKeepDying)


async def test_many_that_are_lost_at_once_are_not_in_a_row() -> None:
    pool = Pool("worker", list("abcdefgh"), 1, Replacing(lambda index: "new", 5.0, 1))
    for _ in range(2):
        assert pool.failure is None
        for member in pool.members:
            pool.lose(member, "the node is gone")
        await until(lambda: len(pool.members) == 8 or pool.failure is not None)
    assert isinstance(pool.failure, WorkersKeepDying), "the second time at the same places they are"
    assert "was lost 2 times" in str(pool.failure)


async def test_without_replacements_the_others_serve_until_none_is_left() -> None:
    client = Client(Pool("worker", ["a", "b"], 1))
    await client.ask("1", "2", "3")
    client.pool.lose(client.at["1"], "gone")
    await client.end("1", "2")
    assert client.at["3"].worker == "b"
    await client.ask("4")
    client.pool.lose(client.at["3"], "gone too")
    with pytest.raises(NoWorkerLeft, match="no worker worker is left; the last: gone too"):
        await asyncio.wait_for(client.tasks["4"], 5)
    await client.drain()


async def test_closing_ends_replacements_and_hands_over_who_is_left() -> None:
    ended: list[str] = []

    async def bring_up(member: Member[str]) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        ended.append(member.worker)
        raise asyncio.CancelledError

    pool = Pool("worker", ["a", "b"], 1, Replacing(lambda index: "new", 60.0, 3), bring_up)
    pool.lose(pool.members[0], "gone")
    await asyncio.sleep(0)
    assert [member.worker for member in await asyncio.wait_for(pool.close(), 5)] == ["b"]
    assert ended == ["new"] and pool.members == []


def test_a_pool_can_be_sent_before_it_is_used() -> None:
    pool = cloudpickle.loads(cloudpickle.dumps(Pool("worker", ["a"], 1, Replacing(str, None, 1))))

    async def use() -> str:
        async with pool.place("1") as member:
            worker: str = member.worker
            return worker

    assert asyncio.run(use()) == "a"


@pytest.mark.parametrize("num_producers", [8, 64])
async def test_wakes_do_not_grow_with_the_number_that_wait(num_producers: int) -> None:
    """Were all woken for each free place, a request would be woken as often as others are served before it."""
    pool = Pool("worker", ["a"], 4)

    async def request(name: str) -> None:
        async with pool.place(name):
            await asyncio.sleep(0)

    counted = [Counted(request(f"{producer}.{index}")) for producer in range(num_producers) for index in range(16)]
    await asyncio.gather(*counted)
    assert max(one.num_wakes for one in counted) <= 2, "once for the place, once at the end of its own wait"
