"""The bound on staleness: pacing, no overtaking past the bound, order of completion."""

from __future__ import annotations

import asyncio
import random

import pytest

from actors.groups import Group
from actors.loop.group_buffer import GroupBuffer
from tests.actors.loop.group_race import is_blocked, prompt, sample


async def admit(buffer: GroupBuffer, index: int) -> Group:
    group = await buffer.admit(index, f"g{index}", prompt(index), 1)
    assert group is not None
    return group


async def finish(buffer: GroupBuffer, group: Group, delay: int = 0) -> None:
    group.samples.append(sample(version=group.admitted_version, delay=delay))
    await buffer.settle(group)


async def test_synchronous_loop_admits_one_batch_at_a_time() -> None:
    buffer = GroupBuffer(prompts_per_step=2, max_staleness=0, num_steps=3)
    first, second = await admit(buffer, 0), await admit(buffer, 1)
    third = asyncio.create_task(buffer.admit(2, "g2", prompt(2), 1))
    assert await is_blocked(third)
    await finish(buffer, second)
    batch = asyncio.create_task(buffer.take(10.0))
    assert await is_blocked(batch)
    await finish(buffer, first)
    assert [group.index for group in await batch] == [0, 1], "in the order of prompts, whichever came first"
    assert await is_blocked(third)
    await buffer.advance(1)
    assert (await third).index == 2  # type: ignore[union-attr]


async def test_one_update_of_staleness_lets_generation_run_one_batch_ahead() -> None:
    buffer = GroupBuffer(prompts_per_step=2, max_staleness=1, num_steps=10)
    groups = [await admit(buffer, index) for index in range(4)]
    fifth = asyncio.create_task(buffer.admit(4, "g4", prompt(4), 1))
    assert await is_blocked(fifth)
    for group in groups[1:3]:
        await finish(buffer, group)
    assert [group.index for group in await buffer.take(10.0)] == [1, 2]
    await buffer.advance(1)
    assert (await fifth).index == 4  # type: ignore[union-attr]


async def test_a_batch_waits_for_groups_that_would_grow_too_old() -> None:
    buffer = GroupBuffer(prompts_per_step=2, max_staleness=1, num_steps=10)
    old = [await admit(buffer, index) for index in range(4)]
    await finish(buffer, old[0])
    await finish(buffer, old[1])
    await buffer.take(10.0)
    await buffer.advance(1)
    young = [await admit(buffer, index) for index in (4, 5)]
    for group in young:
        await finish(buffer, group)
    batch = asyncio.create_task(buffer.take(10.0))
    assert await is_blocked(batch)  # two are ready, but those of version 0 must come now or never
    await finish(buffer, old[3])
    assert await is_blocked(batch)
    await finish(buffer, old[2])
    assert sorted(group.index for group in await batch) == [2, 3]


async def test_a_younger_group_that_finished_first_overtakes_while_the_older_one_has_time() -> None:
    """A third one, still open and young, is no reason to hurry: it is due when the youngest are."""
    buffer = GroupBuffer(prompts_per_step=1, max_staleness=2, num_steps=10)
    first, old = [await admit(buffer, index) for index in (0, 1)]
    await finish(buffer, first)
    assert [group.index for group in await buffer.take(10.0)] == [0]
    await buffer.advance(1)
    young, _ = [await admit(buffer, index) for index in (2, 3)]
    await finish(buffer, young)
    await finish(buffer, old)
    assert [group.index for group in await buffer.take(10.0)] == [2]
    await buffer.advance(2)
    assert [group.index for group in await buffer.take(10.0)] == [1]


@pytest.mark.parametrize("max_staleness", [0, 1, 3])
async def test_no_group_is_ever_staler_than_the_bound_nor_lost(max_staleness: int) -> None:
    per_step, num_steps = 4, 12
    rng = random.Random(max_staleness)
    buffer = GroupBuffer(per_step, max_staleness, num_steps)
    taken: list[Group] = []

    async def produce() -> None:
        pending: list[Group] = []
        index = 0
        while index < per_step * num_steps:
            if pending and rng.random() < 0.6:
                await finish(buffer, pending.pop(rng.randrange(len(pending))))
            elif buffer.may_admit():
                pending.append(await admit(buffer, index))
                index += 1
            elif pending:
                await finish(buffer, pending.pop(rng.randrange(len(pending))))
            await asyncio.sleep(0)
        for group in pending:
            await finish(buffer, group)

    producer = asyncio.create_task(produce())
    for version in range(num_steps):
        batch = await buffer.take(10.0)
        assert len(batch) == per_step
        assert all(0 <= version - group.admitted_version <= max_staleness for group in batch)
        taken += batch
        await buffer.advance(version + 1)
    await producer
    assert sorted(group.index for group in taken) == list(range(per_step * num_steps))


async def test_an_empty_group_gives_its_place_back() -> None:
    buffer = GroupBuffer(prompts_per_step=1, max_staleness=0, num_steps=1)
    group = await admit(buffer, 0)
    await buffer.settle(group)
    replacement = await admit(buffer, 1)
    await finish(buffer, replacement)
    assert [g.index for g in await buffer.take(10.0)] == [1]


async def test_nothing_is_admitted_beyond_the_last_step() -> None:
    buffer = GroupBuffer(prompts_per_step=1, max_staleness=5, num_steps=2)
    await admit(buffer, 0)
    await admit(buffer, 1)
    third = asyncio.create_task(buffer.admit(2, "g2", prompt(2), 1))
    assert await is_blocked(third)
    third.cancel()


async def test_take_names_what_it_waited_for() -> None:
    buffer = GroupBuffer(prompts_per_step=2, max_staleness=0, num_steps=1)
    await finish(buffer, await admit(buffer, 0))
    await admit(buffer, 1)
    with pytest.raises(TimeoutError, match=r"1 of 2 groups ready, 1 open \(oldest: g1\)"):
        await buffer.take(0.01)


async def test_failure_ends_all_waiting() -> None:
    buffer = GroupBuffer(prompts_per_step=1, max_staleness=0, num_steps=1)
    batch = asyncio.create_task(buffer.take(10.0))
    await admit(buffer, 0)
    blocked = asyncio.create_task(buffer.admit(1, "g1", prompt(1), 1))
    await buffer.fail(ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        await batch
    assert await blocked is None


async def test_a_late_score_is_left_for_a_later_batch() -> None:
    buffer = GroupBuffer(prompts_per_step=2, max_staleness=2, num_steps=10)
    groups = [await admit(buffer, index) for index in range(6)]
    for group, delay in zip(groups, (2, 0, 1, 0, 0, 0), strict=True):
        await finish(buffer, group, delay)
    assert [group.index for group in await buffer.take(10.0)] == [1, 3]
    await buffer.advance(1)
    assert [group.index for group in await buffer.take(10.0)] == [2, 4]
    await buffer.advance(2)
    assert [group.index for group in await buffer.take(10.0)] == [0, 5]


@pytest.mark.parametrize("per_step", [1, 3])
async def test_late_scores_never_stop_a_run_nor_grow_too_old(per_step: int) -> None:
    max_staleness, num_steps, rng = 2, 10, random.Random(per_step)
    buffer = GroupBuffer(per_step, max_staleness, num_steps)
    index, taken = 0, 0
    for version in range(num_steps):
        while buffer.may_admit():
            group = await admit(buffer, index)
            index += 1
            if rng.random() < 0.2:
                await buffer.settle(group)  # dropped, so another takes its place
            else:
                await finish(buffer, group, delay=rng.randint(0, max_staleness))
        batch = await buffer.take(10.0)
        taken += len(batch)
        assert all(version - group.admitted_version <= max_staleness for group in batch)
        await buffer.advance(version + 1)
    assert taken == per_step * num_steps
