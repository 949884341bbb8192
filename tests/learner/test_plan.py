"""Who trains on which rows, and in which micro-batches."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.plan import (
    LEAST_COST,
    cut_blocks,
    fixed_cost_of,
    micro_batches,
    packed_tokens,
    padded_tokens,
    plan_batch,
    plan_minibatch,
    plan_packed,
)

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=40)
CALM = settings(max_examples=60, deadline=None)


@CALM
@given(LENGTHS, st.integers(1, 6), st.integers(1, 5), st.integers(1, 500), st.integers(0, 9))
def test_plans_lose_nothing_and_keep_every_bound(
    lengths: list[int], ranks: int, minibatches: int, tokens: int, seed: int
) -> None:
    plan = plan_batch(lengths, ranks, minibatches, tokens, seed)
    seen = sorted(row for rank in range(ranks) for row in plan.rank_rows(rank))
    assert seen == list(range(len(lengths)))  # every row exactly once
    sizes = [len(plan.minibatch_rows(m)) for m in range(plan.num_minibatches)]
    assert plan.num_minibatches == min(minibatches, len(lengths))
    assert max(sizes) - min(sizes) <= 1
    for minibatch in plan.micro_batches:
        assert len(minibatch) == ranks
        assert len({len(micros) for micros in minibatch}) == 1  # the same number on every rank
        assert any(micros[-1] for micros in minibatch)  # and no more than the busiest one needs
        for micros in minibatch:
            for micro in filter(None, micros):
                padded = len(micro) * max(max(lengths[row] for row in micro), 2)
                assert padded <= tokens or len(micro) == 1
    for rank in range(ranks):
        rows = plan.rank_rows(rank)
        cut = [[rows[piece] for piece in pieces] for pieces in plan.rank_slices(rank)]
        assert cut == [[list(micro) for micro in minibatch[rank]] for minibatch in plan.micro_batches]


@CALM
@given(LENGTHS, st.integers(1, 6), st.integers(1, 5))
def test_minibatches_do_not_depend_on_ranks_or_micro_batches(lengths: list[int], ranks: int, minibatches: int) -> None:
    alone = plan_batch(lengths, 1, minibatches, 64, seed=1)
    shared = plan_batch(lengths, ranks, minibatches, 999, seed=1)
    for m in range(alone.num_minibatches):
        assert set(alone.minibatch_rows(m)) == set(shared.minibatch_rows(m))


@CALM
@given(LENGTHS, st.integers(1, 6), st.integers(1, 900))
def test_ranks_compute_about_as_much(lengths: list[int], ranks: int, tokens: int) -> None:
    """A rank is never behind the busiest one by more than one micro-batch of the most uneven block."""
    plan = plan_minibatch(lengths, range(len(lengths)), ranks, tokens)
    sizes = [[padded_tokens(lengths, micro) for micro in micros] for micros in plan]
    loads = [sum(rank) for rank in sizes]
    most_uneven = max(max(block) - min(block) for block in zip(*sizes, strict=True))
    assert max(loads) - min(loads) <= most_uneven


@CALM
@given(st.lists(st.integers(1, 60), min_size=1, max_size=9), st.integers(1, 3), st.integers(1, 300))
def test_cuts_are_the_best_of_all(lengths: list[int], ranks: int, tokens: int) -> None:
    """Against every way to cut: with the fixed cost, and within the budget."""
    ordered, fixed = sorted(lengths, reverse=True), 20

    def cost(ends: tuple[int, ...]) -> float:
        total = 0.0
        for start, end in itertools.pairwise([0, *ends]):
            rows, longest = math.ceil((end - start) / ranks), max(ordered[start], 2)
            if rows > 1 and rows * longest > tokens:
                return math.inf
            total += rows * longest + fixed
        return total

    inner = range(1, len(ordered))
    every = [(*cuts, len(ordered)) for n in range(len(ordered)) for cuts in itertools.combinations(inner, n)]
    assert cost(tuple(cut_blocks(ordered, ranks, tokens, fixed))) == min(map(cost, every))


def long_tail(number: int, median: float, sigma: float) -> list[int]:
    rng = random.Random(0)
    return [min(512, max(16, round(rng.lognormvariate(math.log(median), sigma)))) for _ in range(number)]


@pytest.mark.parametrize(
    ("lengths", "tokens", "most"),
    [
        (long_tail(64, 64, 1.0), 16384, 0.10),  # 0.66 when micro-batches were filled up to the budget
        (long_tail(256, 64, 1.0), 16384, 0.06),  # 0.41
        (long_tail(128, 200, 0.5), 16384, 0.04),  # 0.28
        (long_tail(128, 200, 0.5), 2048, 0.04),  # 0.05
    ],
)
def test_little_is_padding_whatever_the_lengths(lengths: list[int], tokens: int, most: float) -> None:
    padded = sum(padded_tokens(lengths, micro) for micro in micro_batches(lengths, range(len(lengths)), tokens))
    assert 1.0 - sum(lengths) / padded <= most


def test_splits_by_hand() -> None:
    lengths = [10, 3, 9, 4, 10]
    assert micro_batches(lengths, range(5), 20) == [(0, 4), (2,), (3, 1)]
    assert micro_batches(lengths, range(5), 1) == [(0,), (4,), (2,), (3,), (1,)]
    assert micro_batches(lengths, range(5), 100) == [(0, 4, 2, 3, 1)]  # 14 tokens of padding are less than a pass
    apart = [500, 500, 500 - LEAST_COST - 1]
    assert micro_batches(apart, range(3), 5000) == [(0, 1), (2,)]  # and one more than a pass is not
    # the rank that has less gets the larger piece of the next block
    uneven = [100, 90, 80, 40]
    assert plan_minibatch(uneven, range(4), 2, 100) == (((0,), (3,)), ((1,), (2,)))
    with pytest.raises(ValueError, match="empty batch"):
        plan_batch([], 2, 1, 10, 0)
    # two trajectories on three ranks: one rank has nothing, and still one (empty) micro-batch
    plan = plan_batch([5, 5], 3, 1, 100, 0)
    assert sorted(plan.micro_batches[0]) == [((),), ((0,),), ((1,),)]


def test_the_first_micro_batches_that_fit_are_the_same_on_every_rank() -> None:
    plan = plan_batch([100, 90, 80, 40], 2, 1, 100, 0)
    assert [plan.num_within(0, tokens) for tokens in (99, 100, 139, 140, 1000)] == [0, 1, 1, 1, 2]


def test_a_micro_batch_costs_more_where_tokens_are_cheap() -> None:
    assert fixed_cost_of(10**9, False) == LEAST_COST
    assert fixed_cost_of(220_000, False) == 327  # measured: 328
    assert fixed_cost_of(10**9, True) > 1000
    lengths = [100, 100, 20, 20]
    found = [plan_minibatch(lengths, range(4), 1, 10**4, cost) for cost in (159, 160)]
    assert [len(rank) for (rank,) in found] == [2, 1]


@CALM
@given(LENGTHS, st.integers(1, 6), st.integers(1, 5), st.integers(1, 900), st.floats(0.0, 0.1))
def test_packed_plans_lose_nothing_and_keep_every_bound(
    lengths: list[int], ranks: int, minibatches: int, tokens: int, attention: float
) -> None:
    plan = plan_batch(lengths, ranks, minibatches, tokens, 3, attention=attention)
    assert sorted(row for rank in range(ranks) for row in plan.rank_rows(rank)) == list(range(len(lengths)))
    alone = plan_batch(lengths, 1, minibatches, tokens, 3)
    for index, minibatch in enumerate(plan.micro_batches):
        assert set(plan.minibatch_rows(index)) == set(alone.minibatch_rows(index))
        assert len({len(micros) for micros in minibatch}) == 1
        assert all(packed_tokens(lengths, micro) <= tokens or len(micro) <= 1 for rank in minibatch for micro in rank)
        assert any(micros[-1] for micros in minibatch)
        if any(a and b for micros in minibatch for a, b in itertools.pairwise(micros)):
            assert sum(lengths[row] for row in plan.minibatch_rows(index)) > tokens  # else one would have done
    assert plan.num_within(0, 10**9) == len(plan.micro_batches[0][0])


@CALM
@given(LENGTHS, st.integers(1, 6), st.floats(0.0, 0.1))
def test_packed_ranks_differ_by_no_more_than_a_row(lengths: list[int], ranks: int, attention: float) -> None:
    plan = plan_packed(lengths, range(len(lengths)), ranks, 10**6, attention)
    loads = [sum(lengths[r] * (1 + attention * lengths[r]) for micro in rank for r in micro) for rank in plan]
    assert max(loads) - min(loads) <= max(n * (1 + attention * n) for n in lengths) * (1 + 1e-9)


def test_packed_plans_by_hand() -> None:
    assert plan_packed([26, 14, 20], range(3), 1, 100) == (((0, 2, 1),),)  # as the padded plan, if all have room
    # a long row's attention counts: with it the rank of the long one is given nothing more
    lengths = [100, 40, 40, 40]
    assert plan_packed(lengths, range(4), 2, 1000) == (((0,),), ((1, 2, 3),))
    assert plan_packed([100, 60, 60, 30], range(4), 2, 1000, 0.0) == (((0, 3),), ((1, 2),))
    assert plan_packed([100, 60, 60, 30], range(4), 2, 1000, 0.1) == (((0,),), ((1, 2, 3),))
    tail = long_tail(256, 64, 1.0)
    assert len(plan_packed(tail, range(256), 1, 16384)[0]) == -(-sum(tail) // 16384)
