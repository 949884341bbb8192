"""Coverage of predicted quantiles by the randomised integral transform, of discrete and continuous returns."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner.maths.calibration import COVERAGE_LEVELS, CriticFit, randomised_pit
from learner.maths.collective import SingleProcess
from learner.maths.outcomes import nearest, outcomes
from learner.maths.quantiles.quantiles import midpoint_taus, quantile_at
from learner.metrics import to_floats
from tests.learner.oracles import ThreadWorld, on_ranks

F64 = torch.float64
NUM = 4000
WITHIN = 4.0 * 0.5 / math.sqrt(NUM)
"""Four standard deviations of a share at its widest."""


def coverage(quantiles: Tensor, returns: Tensor, seed: int = 0, world: Any = None) -> list[float]:
    """The reported shares, at the levels in order, for [n M] quantiles of n one-token trajectories."""
    uniforms = torch.rand(returns.shape, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return reported(quantiles, returns, uniforms, world or SingleProcess())


def reported(quantiles: Tensor, returns: Tensor, uniforms: Tensor, world: Any) -> list[float]:
    column = quantiles.unsqueeze(1)
    mask = torch.ones(len(returns), 1, dtype=torch.bool)
    fit = CriticFit(returns[:, None], mask, uniforms[:, None], quantiles.shape[-1], world)
    for rows in (slice(0, 1), slice(1, len(returns))):
        place = (rows, slice(0, 1))
        fit.add(place, column[rows].unsqueeze(2), torch.zeros(len(returns), 1)[place], column[rows])
    found = to_floats(fit.metrics(column.mean(dim=-1)))
    return [found[f"critic/coverage_q{round(level * 100):02d}"] for level in COVERAGE_LEVELS]


def coin(p: float, num_quantiles: int = 200) -> Tensor:
    """The quantile function of a reward that is 1 with probability p, [NUM M]."""
    return (midpoint_taus(num_quantiles, dtype=F64) > 1.0 - p).to(F64).expand(NUM, -1)


def tosses(p: float, seed: int = 1) -> Tensor:
    return (torch.rand(NUM, generator=torch.Generator().manual_seed(seed), dtype=F64) < p).to(F64)


def blurred(quantiles: Tensor) -> Tensor:
    """What a quantile Huber loss makes of a coin: quantiles up to 0.05 above 0 and below 1."""
    taus = torch.linspace(0.0, 1.0, quantiles.shape[1], dtype=F64)
    return quantiles + 0.05 * torch.where(quantiles < 0.5, taus, taus - 1.0)


@pytest.mark.parametrize("p", [0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("form", ["exact", "blurred"])
def test_a_perfect_coin_critic_is_calibrated(p: float, form: str) -> None:
    quantiles = coin(p) if form == "exact" else blurred(coin(p))
    for seed in range(3):
        found = coverage(quantiles, tosses(p, seed), seed + 10)
        assert found == pytest.approx(list(COVERAGE_LEVELS), abs=WITHIN)
    assert coverage(quantiles, tosses(p)) == coverage(quantiles, tosses(p))  # nothing is drawn inside


def test_three_outcomes() -> None:
    taus = midpoint_taus(200, dtype=F64)
    quantiles = torch.where(taus < 0.6, 0.0, torch.where(taus < 0.97, 0.5, 1.0)).to(F64).expand(NUM, -1)
    drawn = torch.rand(NUM, generator=torch.Generator().manual_seed(2), dtype=F64)
    returns = torch.where(drawn < 0.6, 0.0, torch.where(drawn < 0.97, 0.5, 1.0)).to(F64)
    assert coverage(quantiles, returns) == pytest.approx(list(COVERAGE_LEVELS), abs=WITHIN)


@pytest.mark.parametrize(
    ("quantiles", "p"),
    [(coin(0.9), 0.1), (coin(0.1), 0.9), (coin(0.5), 0.02), (torch.full((NUM, 200), 0.3, dtype=F64), 0.3)],
    ids=["too sure of success", "too sure of failure", "a fair coin of a rare one", "the mean alone"],
)
def test_a_wrong_coin_critic_is_not(quantiles: Tensor, p: float) -> None:
    found = coverage(quantiles, tosses(p))
    assert max(abs(a - b) for a, b in zip(found, COVERAGE_LEVELS, strict=True)) > 0.2


def test_continuous_returns_below_the_predicted_quantile_are_counted() -> None:
    """Exactly the share below the interpolated quantile, whatever the random numbers are."""
    rng = torch.Generator().manual_seed(3)
    quantiles = torch.randn(NUM, 40, generator=rng, dtype=F64).sort(dim=-1).values
    returns = torch.randn(NUM, generator=rng, dtype=F64)
    expected = [float((returns < quantile_at(quantiles, level)).double().mean()) for level in COVERAGE_LEVELS]
    for seed in (0, 1):
        assert coverage(quantiles, returns, seed) == pytest.approx(expected, abs=1e-12)


@given(seed=st.integers(0, 1000), num=st.integers(2, 50))
@settings(max_examples=50, deadline=None)
def test_the_transform_is_uniform_under_the_prediction(seed: int, num: int) -> None:
    """Atoms of 1 / M each, some of them equal: over all atoms and all u it takes every value equally often."""
    rng = torch.Generator().manual_seed(seed)
    atoms = torch.randint(4, (num,), generator=rng).to(F64).sort().values
    grid = (torch.arange(100, dtype=F64) + 0.5) / 100
    returns, uniforms = atoms.repeat_interleave(100), grid.repeat(num)
    places = randomised_pit(atoms.expand(len(returns), -1), returns, uniforms)
    assert float(places.min()) >= 0.0 and float(places.max()) <= 1.0
    for level in (0.1, 0.5, 0.8):
        assert float((places < level).double().mean()) == pytest.approx(level, abs=0.02)


def test_it_rises_with_the_return_and_ends_in_the_outer_cells() -> None:
    quantiles = torch.tensor([0.0, 1.0, 2.0, 2.0], dtype=F64)
    returns = torch.tensor([-5.0, 0.0, 0.25, 1.0, 1.5, 2.0, 9.0], dtype=F64)
    places = randomised_pit(quantiles.expand(7, -1), returns, torch.full((7,), 0.5, dtype=F64))
    assert places.tolist() == pytest.approx([0.0625, 0.125, 0.1875, 0.375, 0.5, 0.75, 0.9375])


def test_every_rank_takes_the_same_returns_for_outcomes() -> None:
    """A rank whose own returns are all 0 reads its critic as the ranks that have seen a 1 do."""
    p, half = 0.1, NUM // 2
    order = tosses(p).sort().values
    quantiles = blurred(coin(p))
    whole = coverage(quantiles, order)
    uniforms = torch.rand(NUM, generator=torch.Generator().manual_seed(0), dtype=F64)

    def work(world: ThreadWorld) -> list[float]:
        rows = slice(world.rank * half, (world.rank + 1) * half)
        return reported(quantiles[rows], order[rows], uniforms[rows], world)

    parts = on_ranks(2, work)
    assert [(a + b) / 2 for a, b in zip(*parts, strict=True)] == pytest.approx(whole)


def test_few_values_are_outcomes_and_many_are_not() -> None:
    zeros = torch.zeros(64, dtype=F64)
    rare = zeros.clone()
    rare[5] = 1.0
    found = outcomes(rare, 64)
    assert found is not None and found.tolist() == [0.0, 1.0]
    assert outcomes(zeros, 64) is not None and outcomes(zeros[:0], 0) is None
    assert outcomes(torch.arange(64) % 8, 64) is not None and outcomes(torch.arange(64) % 9, 64) is None
    assert outcomes(torch.arange(64).repeat(100), 64) is None  # each of 64 returns at 100 tokens
    assert outcomes(torch.tensor([0.0, 1.0]), 2) is not None and outcomes(torch.tensor([0.0, 1.0, 2.0]), 3) is None
    grid = torch.tensor([0.0, 0.5, 2.0])
    assert nearest(torch.tensor([-1.0, 0.2, 0.3, 1.2, 1.3, 5.0]), grid).tolist() == [0.0, 0.0, 0.5, 0.5, 2.0, 2.0]
