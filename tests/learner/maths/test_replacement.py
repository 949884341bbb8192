"""Which slots are replaced, by which sources: counts, and independence of one another."""

from __future__ import annotations

import pytest
import torch

from learner.maths.replacement import ReplacementDraws

CPU = torch.device("cpu")


def draws(rows: int, num: int, expected: float, seed: int = 0) -> ReplacementDraws:
    return ReplacementDraws(torch.Generator().manual_seed(seed), rows, num, expected, CPU)


def test_a_number_that_is_whole_but_for_rounding_is_taken_for_whole() -> None:
    """(1 - .9) * 10 is a little below 1 in floats, and .05 * 200 a little above 10."""
    assert (1.0 - 0.9) * 10 < 1.0
    for num, expected, count in ((10, (1.0 - 0.9) * 10, 1), (200, (1.0 - 0.95) * 200, 10), (4, 0.0, 0), (4, 4.0, 4)):
        slots, sources, used = draws(3, num, expected).step(1)
        assert slots.shape == sources.shape == used.shape == (3, count)
        assert slots.dtype == sources.dtype == torch.long
        assert used.all()
        assert all(len(set(row)) == count for row in (*slots.tolist(), *sources.tolist()))


def test_slots_sources_and_the_coin_are_independent() -> None:
    """Two quantiles, half a slot on average: every combination of slot, source and use is as likely as any other."""
    rows = 20_000
    slots, sources, used = draws(rows, 2, 0.5).step(1)
    found = (4 * used.long() + 2 * slots + sources).flatten().bincount(minlength=8) / rows
    assert found.tolist() == pytest.approx([1 / 8] * 8, abs=4 * (7 / 64 / rows) ** 0.5)


def test_every_step_of_a_block_and_the_next_block_draw_anew() -> None:
    some = draws(1, 50, 25.0)
    found = [tuple(some.step(k)[0][0].tolist()) for k in range(1, 2 * ReplacementDraws.block + 2)]
    assert len(set(found)) == len(found)


def test_a_row_with_its_own_generator_draws_the_same_alone() -> None:
    def row(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    together = ReplacementDraws([row(1), row(2)], 2, 7, 2.5, CPU)
    alone = ReplacementDraws([row(2)], 1, 7, 2.5, CPU)
    for k in range(1, 40):
        for whole, part in zip(together.step(k), alone.step(k), strict=True):
            assert torch.equal(whole[1:], part)
