"""Rows of different lengths, cut into blocks for attention."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.maths import row_blocks
from learner.maths.row_blocks import BLOCK_COST, Block, cut_into_blocks

LENGTHS = st.lists(st.integers(1, 600), min_size=1, max_size=8)


def cost(lengths: list[int], ends: tuple[int, ...]) -> int:
    blocks = [lengths[a:b] for a, b in itertools.pairwise([0, *ends])]
    return sum(len(block) * max(block) ** 2 + BLOCK_COST for block in blocks)


@settings(max_examples=60, deadline=None)
@given(LENGTHS)
def test_blocks_cost_least_of_all_cuts(lengths: list[int]) -> None:
    inner = range(1, len(lengths))
    every = [(*cuts, len(lengths)) for n in range(len(lengths)) for cuts in itertools.combinations(inner, n)]
    assert cost(lengths, tuple(cut_into_blocks(lengths))) == min(cost(lengths, ends) for ends in every)


def test_rows_of_nearly_one_length_stay_together() -> None:
    assert cut_into_blocks([26, 20, 14] * 40) == [120]  # the demo's lengths
    assert cut_into_blocks([512, 500, 20, 20, 19]) == [2, 5]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_side_by_side_and_back(lengths: list[int]) -> None:
    x = torch.randn(1, 2, sum(lengths), 3)
    block = Block.of(lengths, x.device)
    rows = block.side_by_side(x)
    assert rows.shape == (len(lengths), 2, max(lengths), 3)
    for row, part in zip(rows, x[0].split(lengths, dim=1), strict=True):
        assert torch.equal(row[:, : part.shape[1]], part) and not row[:, part.shape[1] :].any()
    assert torch.equal(block.one_after_another(rows.transpose(1, 2)), x.transpose(1, 2))


def test_cheap_calls_give_more_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_blocks, "BLOCK_COST", 1)
    assert cut_into_blocks([5, 5, 2]) == [2, 3]
