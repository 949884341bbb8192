"""Batched calls of a real actor: it dies, what it stored is lost, and bulk goes from one actor to another."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
import ray

from actors.calls.batched_actor import BatchedActor
from actors.calls.caller import BatchedCaller, caller_of
from actors.calls.chunks import Packing, StoredItem, unpacked
from actors.faults import WorkerDied, WorkerError
from actors.pools.loss import reply

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SIZE = 200_000
"""Bytes of one item: too large for Ray to send it with an answer."""


class Desk(BatchedActor):
    """Makes, joins and breaks."""

    async def make(self, letter: str) -> tuple[str, bytes]:
        """A letter, and many of it."""
        return letter, letter.encode() * SIZE

    async def first(self, *items: bytes) -> str:
        """First letters of what others have made."""
        assert all(len(item) == SIZE for item in items)
        return "".join(chr(item[0]) for item in items)

    async def wait(self) -> None:
        """For ever."""
        await asyncio.Event().wait()

    async def die(self) -> None:
        """At once."""
        os._exit(3)

    async def refuse(self) -> None:
        """With an error."""
        raise ValueError("odd")


@ray.remote(num_cpus=0)
def first_letters(places: list[Any], *chunks: list[bytes]) -> str:
    """What a learner does with a batch."""
    return "".join(chr(unpacked(place, chunks)[0]) for place in places)


@pytest.fixture
def desks(ray_local: None) -> Any:
    actors = [ray.remote(Desk).options(num_cpus=0, max_concurrency=100).remote() for _ in range(2)]
    yield actors
    for actor in actors:
        ray.kill(actor)


async def test_bulk_goes_from_actor_to_actor_and_never_through_the_caller(desks: list[Any]) -> None:
    maker, reader = map(caller_of, desks)
    assert isinstance(maker, BatchedCaller)
    made = await asyncio.gather(*(maker.call("make", letter, has_bulk=True) for letter in "abcdef"))
    assert [small for small, _ in made] == list("abcdef")
    items = [item for _, item in made]
    assert all(isinstance(item, StoredItem) for item in items)
    assert len({item.chunk for item in items}) < len(items)
    assert await reader.call("first", items[4], items[0]) == "ea"
    packing = Packing()
    places = [packing.item(item) for item in reversed(items)]
    assert await first_letters.remote(places, *packing.chunks) == "fedcba"
    assert len(await items[2]) == SIZE


async def test_an_actor_that_dies_fails_all_its_calls_and_no_other(desks: list[Any]) -> None:
    dying, other = map(caller_of, desks)
    waiting = [dying.call("wait") for _ in range(5)]
    with pytest.raises(WorkerError, match="ValueError: odd"):
        await reply(dying.call("refuse"), "desk-0", "refuse", 60.0)
    with pytest.raises(WorkerDied):
        await reply(dying.call("die"), "desk-0", "die", 60.0)
    for call in waiting:
        with pytest.raises(WorkerDied):
            await reply(call, "desk-0", "wait", 60.0)
    with pytest.raises(WorkerDied):
        await reply(dying.call("refuse"), "desk-0", "refuse", 60.0)
    assert (await other.call("make", "x", has_bulk=True))[0] == "x"
