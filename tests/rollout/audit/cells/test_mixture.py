"""EM against a gradient method on a likelihood that is written out cell by cell."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from rollout.audit.cells.counts import Array, CellCounts
from rollout.audit.cells.mixture import FitSettings, Mixture, best_fit, fit, penalised_log_likelihood
from rollout.audit.cells.posterior import GoldNoise
from tests.rollout.audit.cells.scored_cells import scored_cells

NOISE = GoldNoise(false_right=0.05, false_wrong=0.1)
PRIORS = FitSettings(prior_errors=1.5, prior_correct=3.0, max_sweeps=5000, tolerance=1e-11)
KINDS = [(False, False), (False, True), (True, False), (True, True)]
"""Exclusive, and with persistent rates and gold."""


def some_cells(exclusive: bool, persistent: bool) -> CellCounts:
    return scored_cells(
        np.random.default_rng(5),
        transient=(0.3, 0.2),
        persistent=(0.1, 0.15) if persistent else (0.0, 0.0),
        num_cells=60,
        calls=(1, 8),
        gold_share=0.5 if persistent else 0.0,
        exclusive=exclusive,
    )


def num_shares(exclusive: bool) -> int:
    """Of some_cells: of cells with one or two calls, three to five, and more; or of prompts."""
    return 1 if exclusive else 3


def direct(counts: CellCounts, rates: Tensor, exclusive: bool, persistent: bool) -> Tensor:
    """Penalised marginal log-likelihood, prompt by prompt, over every truth and verdict, in probabilities."""
    plus, minus, pi_plus, pi_minus, *shares = rates
    total = torch.zeros((), dtype=torch.float64)
    for prompt in sorted(set(counts.prompts.tolist())):
        cells = np.flatnonzero(counts.prompts == prompt)
        seen = {(int(k), c): cell(counts, int(k), c, rates, persistent) for k in cells for c in (0, 1)}
        if exclusive:
            (share,) = shares
            none = math.prod((seen[k, 0] for k in cells), start=torch.ones((), dtype=torch.float64))
            one = sum(math.prod(seen[k, int(k == right)] for k in cells) for right in cells)
            total = total + torch.log((1.0 - share) * none + share / len(cells) * one)
        else:
            for k in cells:
                share = shares[sum(counts.calls[k] > edge for edge in (2, 5))]  # up to two calls, up to five, more
                total = total + torch.log((1.0 - share) * seen[k, 0] + share * seen[k, 1])
    for rate in (plus, minus, pi_plus, pi_minus) if persistent else (plus, minus):
        total = total + 0.5 * torch.log(rate) + 2.0 * torch.log1p(-rate)
    return total


def cell(counts: CellCounts, k: int, truth: int, rates: Tensor, persistent: bool) -> Tensor:
    """Probability of what is seen of cell k."""
    plus, minus, pi_plus, pi_minus = rates[:4]
    ones, zeros = float(counts.ones[k]), float(counts.calls[k] - counts.ones[k])
    if_one = (1.0 - minus) ** ones * minus**zeros
    if_zero = plus**ones * (1.0 - plus) ** zeros
    seen = if_one if truth else if_zero
    if persistent:
        seen = (1.0 - pi_minus) * if_one + pi_minus * if_zero if truth else pi_plus * if_one + (1.0 - pi_plus) * if_zero
    says_right = 1.0 - NOISE.false_wrong if truth else NOISE.false_right
    labelled: Tensor = seen * {1.0: says_right, 0.0: 1.0 - says_right}.get(float(counts.gold[k]), 1.0)
    return labelled


def maximised(counts: CellCounts, exclusive: bool, persistent: bool) -> Array:
    """[4 + shares] by L-BFGS in log-odds."""
    point = torch.tensor(
        [-1.0, -1.0, -2.0, -2.0, *[0.0] * num_shares(exclusive)], dtype=torch.float64, requires_grad=True
    )
    optimiser = torch.optim.LBFGS(
        [point], max_iter=100, tolerance_grad=1e-9, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = -direct(counts, torch.sigmoid(point), exclusive, persistent)
        value.backward()
        return value

    optimiser.step(loss)
    return np.asarray(torch.sigmoid(point).detach().numpy())


@pytest.mark.slow
@pytest.mark.parametrize(("exclusive", "persistent"), KINDS)
def test_the_likelihood_and_its_maximum_are_those_of_a_direct_search(exclusive: bool, persistent: bool) -> None:
    counts = some_cells(exclusive, persistent)
    mixture = Mixture.of(counts, exclusive=exclusive, persistent=persistent, gold_noise=NOISE)
    weights = mixture.weights(np.ones(mixture.num_prompts))[None]
    number = num_shares(exclusive)
    for rates in (
        np.array([0.2, 0.3, 0.1, 0.2, *[0.4, 0.1, 0.7][:number]]),
        np.array([0.45, 0.05, 0.3, 0.01, *[0.9, 0.3, 0.2][:number]]),
    ):
        wanted = direct(counts, torch.tensor(rates), exclusive, persistent).item()
        assert penalised_log_likelihood(mixture, weights, rates[None], PRIORS) == pytest.approx([wanted], rel=1e-10)
    found, wanted_rates = best_fit(mixture, PRIORS), maximised(counts, exclusive, persistent)
    shares = range(4, 4 + number)
    read = [0, 1, 2, 3, *shares] if persistent else [0, 1, *shares]
    assert found[read] == pytest.approx(wanted_rates[read], abs=1e-4)


@pytest.mark.parametrize(("exclusive", "persistent"), KINDS)
def test_damping_and_the_start_do_not_move_the_maximum_and_steps_never_descend(
    exclusive: bool, persistent: bool
) -> None:
    mixture = Mixture.of(some_cells(exclusive, persistent), exclusive=exclusive, persistent=persistent)
    weights = mixture.weights(np.ones(mixture.num_prompts))[None]
    damped = FitSettings(prior_errors=1.5, prior_correct=3.0, damping=0.5, max_sweeps=5000, tolerance=1e-11)
    flips = [0.1, 0.1] if persistent else [0.0, 0.0]
    start = np.array([[0.2, 0.4, *flips, *[0.3] * num_shares(exclusive)]])
    assert fit(mixture, weights, start, damped)[0] == pytest.approx(best_fit(mixture, PRIORS), abs=1e-6)
    values = [
        penalised_log_likelihood(
            mixture, weights, fit(mixture, weights, start, FitSettings(max_sweeps=k)), FitSettings()
        )[0]
        for k in (1, 2, 3, 5, 9)
    ]
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(values))


def test_a_prompt_of_weight_two_is_two_prompts() -> None:
    counts = some_cells(False, True)
    twice = np.where(np.arange(15) < 10, 2.0, 1.0)
    again = np.flatnonzero(counts.prompts < 10)
    longer = CellCounts.of(*(np.append(x, x[again]) for x in (counts.calls, counts.ones, counts.prompts, counts.gold)))
    for exclusive in (False, True):
        if exclusive:
            longer = CellCounts.of(
                longer.calls, longer.ones, np.append(counts.prompts, 100 + counts.prompts[again]), longer.gold
            )
        first, second = (Mixture.of(c, exclusive=exclusive, persistent=True) for c in (counts, longer))
        start = np.array([[0.2, 0.2, 0.1, 0.1, *[0.5] * num_shares(exclusive)]])
        ends = [
            fit(mixture, mixture.weights(of_prompts)[None], start, PRIORS)
            for mixture, of_prompts in ((first, twice), (second, np.ones(second.num_prompts)))
        ]
        assert ends[0] == pytest.approx(ends[1], abs=1e-8)


def test_equal_cells_share_a_row() -> None:
    counts = CellCounts.of([3, 3, 2, 3], [1, 1, 1, 1], gold=[math.nan, math.nan, math.nan, 1.0])
    mixture = Mixture.of(counts, exclusive=False, persistent=True)
    assert len(mixture.calls) == 3
    assert sorted(mixture.weights(np.ones(4)).tolist()) == [1.0, 1.0, 2.0]


def test_settings_without_a_maximum_or_an_end_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        FitSettings(prior_errors=0.5)
    with pytest.raises(ValueError, match="damping must be in"):
        FitSettings(damping=1.0)
    with pytest.raises(ValueError, match="must be positive"):
        FitSettings(tolerance=0.0)
