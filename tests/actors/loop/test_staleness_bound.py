"""The bound on staleness holds in whatever order groups finish, and costs no wait that can be avoided."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.groups import Group
from actors.loop.group_buffer import GroupBuffer
from tests.actors.loop.group_race import Plan, Race, is_blocked, prompt, sample

SEEDS = st.integers(0, 2**32 - 1)


async def admit(buffer: GroupBuffer, index: int) -> Group:
    group = await buffer.admit(index, f"g{index}", prompt(index), 1)
    assert group is not None
    return group


async def finish(buffer: GroupBuffer, group: Group, version: int | None = None) -> None:
    group.samples.append(sample(group.admitted_version if version is None else version))
    await buffer.settle(group)


async def test_a_younger_group_does_not_overtake_what_would_then_come_too_late() -> None:
    """B and C, both due at version 2, need the batches of versions 1 and 2, so D may not have the first of them."""
    buffer = GroupBuffer(prompts_per_step=1, max_staleness=2, num_steps=10)
    a, b, c = [await admit(buffer, index) for index in range(3)]
    await finish(buffer, a)
    assert [group.index for group in await buffer.take(10.0)] == [0]
    await buffer.advance(1)
    await finish(buffer, await admit(buffer, 3))
    batch = asyncio.create_task(buffer.take(10.0))
    assert await is_blocked(batch)
    await finish(buffer, c)
    assert [group.index for group in await batch] == [2], "C, since B and D can follow; D cannot go before both"
    await buffer.advance(2)
    batch = asyncio.create_task(buffer.take(10.0))
    assert await is_blocked(batch), "B is due now"
    await finish(buffer, b)
    assert [group.index for group in await batch] == [1]


async def test_a_group_that_began_late_may_be_trained_on_later() -> None:
    """Once it is finished its own oldest version counts, not the one it was admitted at."""
    buffer = GroupBuffer(prompts_per_step=1, max_staleness=1, num_steps=10)
    first, second = [await admit(buffer, index) for index in range(2)]
    await finish(buffer, first)
    await buffer.take(10.0)
    await buffer.advance(1)
    third = await admit(buffer, 2)
    await finish(buffer, third)
    batch = asyncio.create_task(buffer.take(10.0))
    assert await is_blocked(batch)
    await finish(buffer, second, version=1)
    assert [group.index for group in await batch] == [2], "it was finished first, and both are due at version 2"


async def test_a_batch_has_its_size_even_if_samples_are_older_than_their_admission() -> None:
    """Which no engine should give; then no choice keeps the bound, and the oldest go first."""
    buffer = GroupBuffer(prompts_per_step=1, max_staleness=1, num_steps=10, version=1)
    groups = [await admit(buffer, index) for index in range(2)]
    for group in groups:
        await finish(buffer, group, version=0)
    assert [group.index for group in await buffer.take(10.0)] == [0]
    await buffer.advance(2)
    assert [group.index for group in await buffer.take(10.0)] == [1]


@settings(deadline=None, max_examples=150)
@given(
    per_step=st.integers(1, 8),
    max_staleness=st.integers(0, 5),
    more_steps=st.integers(1, 6),
    seed=SEEDS,
    drop=st.sampled_from((0.0, 0.2)),
    is_late=st.booleans(),
    refuse=st.sampled_from((0.0, 0.15)),
    slow=st.sampled_from((0.0, 0.2, 0.5)),
)
def test_any_order_of_finishing(
    per_step: int,
    max_staleness: int,
    more_steps: int,
    seed: int,
    drop: float,
    is_late: bool,
    refuse: float,
    slow: float,
) -> None:
    """Nothing is too old, nothing is lost or trained on twice, and nothing waits for ever."""
    delay = max_staleness if is_late else 0
    race = Race(Plan(per_step, max_staleness, max_staleness + more_steps, seed, drop, delay, refuse, slow))
    asyncio.run(race.run())
    assert len(race.trained) == race.plan.num_steps
    assert sorted(race.trained_indices + race.dropped_indices) == list(range(race.num_admitted))


@settings(deadline=None, max_examples=40)
@given(per_step=st.integers(1, 8), num_steps=st.integers(1, 5), seed=SEEDS, drop=st.sampled_from((0.0, 0.3)))
def test_bound_0_is_the_synchronous_loop(per_step: int, num_steps: int, seed: int, drop: float) -> None:
    """Each batch is what was admitted since the one before and not dropped, in the order of the prompts."""
    race = Race(Plan(per_step, 0, num_steps, seed, drop))
    asyncio.run(race.run())
    assert race.trained_indices == sorted(race.trained_indices)
    for version, batch in enumerate(race.trained):
        assert {group.admitted_version for group in batch} == {version}


@settings(deadline=None, max_examples=120)
@given(
    shape=st.sampled_from(((1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1))),
    seed=SEEDS,
    drop=st.sampled_from((0.0, 0.2)),
    is_late=st.booleans(),
    refuse=st.sampled_from((0.0, 0.1)),
    slow=st.sampled_from((0.0, 0.4)),
)
def test_a_batch_is_formed_exactly_when_one_is_possible(
    shape: tuple[int, int], seed: int, drop: float, is_late: bool, refuse: float, slow: float
) -> None:
    """At every moment of a small race the buffer agrees with a search through all batches and all ways to go on."""
    per_step, max_staleness = shape
    delay = max_staleness if is_late else 0
    plan = Plan(per_step, max_staleness, max_staleness + 4, seed, drop, delay, refuse, slow)
    race = Race(plan, check_against_search=True)
    asyncio.run(race.run())


def test_the_races_are_close_ones() -> None:
    """Groups do overtake others, and batches do have to wait, or the tests above would show little."""
    races = [Race(Plan(2, 3, 12, seed, drop=0.1, max_delay=2)) for seed in range(10)]
    for race in races:
        asyncio.run(race.run())
    assert sum(race.num_overtaken for race in races) > 50
    assert sum(race.num_forced_waits for race in races) > 20


@pytest.mark.parametrize("seed", range(3))
async def test_the_last_batches_are_whole(seed: int) -> None:
    """A run shorter than the bound ends with whole batches and leaves nothing behind."""
    race = Race(Plan(per_step=3, max_staleness=5, num_steps=2, seed=seed, drop=0.3))
    await race.run()
    assert [len(batch) for batch in race.trained] == [3, 3]
