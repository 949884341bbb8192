"""How many workers a pool has: more as there is room, fewer when they are done, and what it does without room."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest

from actors.faults import WorkersKeepDying
from actors.pools import pool as pool_module
from actors.pools.members import Member, PoolObserver, Replacing
from actors.pools.pool import Pool
from tests.actors.pools.test_pool import Client, until


class Hotel:
    """Rooms that are free or not, and whether each was given back as often as it was taken."""

    def __init__(self, num_free: int) -> None:
        self.num_free = num_free
        self.taken: dict[int, int] = defaultdict(int)
        self.asked: list[int] = []

    async def take(self, index: int) -> None:
        self.asked.append(index)
        while self.num_free == 0:
            await asyncio.sleep(0)
        self.num_free -= 1
        self.taken[index] += 1
        assert self.taken[index] == 1, "two workers of one number"

    async def lost(self, index: int) -> None:
        await asyncio.Event().wait()

    def give_back(self, index: int) -> None:
        if self.taken[index]:
            self.taken[index] -= 1
            self.num_free += 1


class Seen(PoolObserver):
    def __init__(self) -> None:
        self.events: list[str] = []

    def worker_event(self, worker: str, text: str) -> None:
        self.events.append(f"{worker} {text}")

    def worker_joined(self, worker: str) -> None:
        self.events.append(f"{worker} joined")

    def worker_left(self, worker: str) -> None:
        self.events.append(f"{worker} left")


class Elastic:
    """A pool of one worker that may become larger."""

    def __init__(self, num_free: int, max_open: int = 2, bring_up: bool = True) -> None:
        self.hotel, self.seen = Hotel(num_free), Seen()
        self.hotel.taken[0] = 1  # the first worker's
        self.stopped: list[str] = []
        self.starts = bring_up
        replacing = Replacing(lambda index: f"new {index}", 5.0, 3, self.hotel)
        self.pool = Pool("worker", ["first"], max_open, replacing, self.bring_up, self.let_go, self.seen)
        self.client = Client(self.pool)

    async def bring_up(self, member: Member[str]) -> None:
        if not self.starts:
            raise OSError("no model here")

    async def let_go(self, member: Member[str]) -> None:
        await asyncio.sleep(0)
        self.stopped.append(member.worker)

    @property
    def serving(self) -> list[str]:
        return [member.worker for member in self.pool.members]


async def test_as_many_join_as_have_room_and_the_others_when_there_is_some() -> None:
    made = Elastic(num_free=1)
    await made.client.ask("1", "2", "3", "4", "5")
    made.pool.resize(3, 1)
    await until(lambda: made.serving == ["first", "new 1"])
    await until(lambda: made.client.served == ["1", "2", "3", "4"])
    assert made.pool.waiting == {2} and not made.pool.lacks_room, "they are not needed"
    made.hotel.num_free += 1
    await until(lambda: made.serving == ["first", "new 1", "new 2"])
    await until(lambda: "5" in made.client.served and not made.pool.waiting)
    assert made.seen.events == ["worker-1 joined", "worker-2 joined"] and made.pool.num_replaced == 0
    await made.client.drain()
    await made.pool.close()


async def test_who_leaves_gets_nothing_more_and_finishes_what_it_has() -> None:
    made = Elastic(num_free=1)
    made.pool.resize(2, 1)
    await until(lambda: len(made.serving) == 2)
    await made.client.ask("1", "2", "3", "4", "5")
    assert [made.client.at[name].worker for name in "1234"] == ["first", "new 1", "first", "new 1"]
    made.pool.resize(1, 1)
    await made.client.end("2")
    assert "5" not in made.client.at, "the place that is free is of one that leaves"
    assert made.serving == ["first", "new 1"], "it takes part in what all do, such as new weights"
    await made.client.end("1")
    assert made.client.at["5"].worker == "first"
    await made.client.end("4")
    await until(lambda: made.stopped == ["new 1"] and "worker-1 left" in made.seen.events)
    assert made.serving == ["first"] and made.hotel.num_free == 1
    await made.client.drain()


async def test_one_that_is_wanted_again_before_it_is_gone_stays_or_comes_back() -> None:
    made = Elastic(num_free=1)
    made.pool.resize(2, 1)
    await until(lambda: len(made.serving) == 2)
    await made.client.ask("1", "2")
    made.pool.resize(1, 1)
    made.pool.resize(2, 1)
    await made.client.end("2")
    assert made.serving == ["first", "new 1"] and made.stopped == []
    made.pool.resize(1, 1)  # it is being let go
    made.pool.resize(2, 1)
    await until(lambda: made.seen.events[-2:] == ["worker-1 left", "worker-1 joined"])
    await made.client.drain()


async def test_one_that_waits_for_room_and_is_not_wanted_any_more_waits_no_longer() -> None:
    made = Elastic(num_free=0)
    made.pool.resize(2, 2)
    await until(lambda: made.pool.waiting == {1})
    assert made.pool.lacks_room
    made.pool.resize(1, 1)
    await until(lambda: not made.pool.waiting)
    made.hotel.num_free = 1
    for _ in range(5):
        await asyncio.sleep(0)
    assert made.serving == ["first"] and made.hotel.num_free == 1
    await made.pool.close()


async def test_a_pool_that_is_held_makes_nothing_until_it_is_told_a_size() -> None:
    made = Elastic(num_free=0)
    made.pool.resize(2, 1)
    await until(lambda: made.pool.waiting == {1})
    made.pool.hold()
    await until(lambda: not made.pool.waiting)
    made.hotel.num_free = 2
    made.pool.lose(made.pool.members[0], "gone")
    for _ in range(5):
        await asyncio.sleep(0)
    assert made.serving == [] and made.hotel.num_free == 3
    made.pool.resize(2, 1)
    await until(lambda: made.serving == ["new 0", "new 1"])


async def test_those_that_make_room_for_others_come_back_with_the_next_size() -> None:
    made = Elastic(num_free=1)
    made.pool.resize(2, 1)
    await until(lambda: len(made.serving) == 2)
    made.pool.hold()
    made.pool.dismiss({1})
    await until(lambda: made.stopped == ["new 1"] and made.hotel.num_free == 1)
    assert made.serving == ["first"]
    made.pool.resize(2, 1)
    await until(lambda: made.serving == ["first", "new 1"])


async def test_a_lost_worker_gives_its_room_back_and_its_successor_takes_one() -> None:
    made = Elastic(num_free=0)
    made.pool.resize(1, 1)
    made.pool.lose(made.pool.members[0], "its host is gone")
    await until(lambda: made.serving == ["new 0"])
    assert made.hotel.asked == [0] and made.hotel.num_free == 0
    assert made.seen.events == ["worker-0 lost: its host is gone", "worker-0 replaced"]


async def test_one_that_is_not_needed_and_cannot_be_made_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "REST_S", 0.01)
    made = Elastic(num_free=1, bring_up=False)
    made.pool.resize(2, 1)
    await until(lambda: any("given up for 0.01 s" in event for event in made.seen.events))
    assert made.pool.failure is None and made.hotel.num_free == 1
    made.starts = True
    async with asyncio.timeout(10):
        while made.serving != ["first", "new 1"]:
            await asyncio.sleep(0.01)


async def test_one_that_is_needed_and_cannot_be_made_ends_the_pool() -> None:
    made = Elastic(num_free=1, bring_up=False)
    made.pool.resize(2, 2)
    await until(lambda: made.pool.failure is not None)
    assert isinstance(made.pool.failure, WorkersKeepDying)
    assert made.hotel.num_free == 1
