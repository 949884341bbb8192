"""Error rates and the worth of the value model, against enumeration of all truths and against what was simulated."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from learner.algorithms.corrections.evidence.channel import CellTable, Channel, cell_log_likelihoods, fit_channel

F64 = torch.float64


def simulated(
    num_cells: int, num_scores: int, rates: tuple[float, float], gold_share: float, signal: float, seed: int
) -> CellTable:
    """Half of the cells are right; a value model whose log-odds are ``signal`` times right ones."""
    g = torch.Generator().manual_seed(seed)
    truths = (torch.rand(num_cells, generator=g) < 0.5).double()
    chance = torch.where(truths > 0.5, 1 - rates[1], rates[0])
    scores = (torch.rand(num_scores, num_cells, generator=g) < chance).double().sum(dim=0)
    # The log-odds of two normals one apart are normal too, with this mean and spread.
    logits = signal * ((truths - 0.5) + torch.randn(num_cells, generator=g, dtype=F64))
    gold = torch.where(torch.rand(num_cells, generator=g) < gold_share, truths, torch.nan)
    return CellTable(np.full(num_cells, float(num_scores)), scores.numpy(), gold.numpy(), logits[:, None].numpy())


def test_likelihood_equals_the_sum_over_all_truths() -> None:
    counts = np.array([1.0, 3.0, 2.0, 5.0, 1.0])
    ones = np.array([1.0, 1.0, 0.0, 4.0, 0.0])
    gold = np.array([math.nan, math.nan, 0.0, math.nan, 1.0])
    logits = np.array([[0.3, 1.0], [-1.0, 0.1], [0.5, -0.4], [2.0, 0.9], [-0.2, -0.7]])
    fp, fn, slopes, intercept = 0.2, 0.35, (0.7, 0.4), -0.1
    total = 0.0
    for truths in itertools.product((0, 1), repeat=5):
        if any(not math.isnan(g) and g != t for g, t in zip(gold.tolist(), truths, strict=True)):
            continue
        probability = 1.0
        for t, n, s, z in zip(truths, counts.tolist(), ones.tolist(), logits.tolist(), strict=True):
            right = 1 / (1 + math.exp(-(slopes[0] * z[0] + slopes[1] * z[1] + intercept)))
            one = 1 - fn if t else fp
            probability *= (right if t else 1 - right) * one**s * (1 - one) ** (n - s)
        total += probability
    point = np.array([math.log(fp / (1 - fp)), math.log(fn / (1 - fn)), *slopes, intercept])
    values, gradients = cell_log_likelihoods(point, CellTable(counts, ones, gold, logits))
    assert values.sum() == pytest.approx(math.log(total), rel=1e-12)
    for index in range(5):
        step = np.eye(5)[index] * 1e-6
        up, down = (cell_log_likelihoods(point + s, CellTable(counts, ones, gold, logits))[0] for s in (step, -step))
        assert gradients[index] == pytest.approx((up - down) / 2e-6, abs=1e-8)


@pytest.mark.parametrize("rates", [(0.3, 0.3), (0.4, 0.1), (0.1, 0.4), (0.4, 0.4), (0.55, 0.55)])
def test_rates_with_a_few_gold_labels(rates: tuple[float, float]) -> None:
    found = [fit_channel(simulated(6000, 1, rates, 0.05, 1.0, seed)) for seed in range(8)]
    errors = [f.youden_j - (1 - sum(rates)) for f in found]
    assert max(map(abs, errors)) < 0.15
    assert abs(sum(errors) / 8) < 0.05
    # the standard error it names is the one it has
    assert 0.4 < (sum(e * e for e in errors) / sum(f.youden_std**2 for f in found)) ** 0.5 < 2.0
    assert all(0.5 < f.slopes[0] < 1.6 for f in found)


@pytest.mark.parametrize("rates", [(0.3, 0.3), (0.4, 0.1), (0.1, 0.4)])
def test_rates_without_gold_from_repeats(rates: tuple[float, float]) -> None:
    for seed in range(4):
        found = fit_channel(simulated(2000, 6, rates, 0.0, 0.0, seed))
        assert found.false_positive_rate == pytest.approx(rates[0], abs=0.04)
        assert found.false_negative_rate == pytest.approx(rates[1], abs=0.04)
        assert found.youden_std < 0.05


def test_values_of_any_size_are_fitted() -> None:
    """A value model that is sure of itself, and labels that contradict it."""
    cells = simulated(400, 1, (0.3, 0.3), 0.1, 1.0, 1)
    for factor in (0.0, 1e-30, 50.0, 1e4):
        found = fit_channel(CellTable(cells.num_scores, cells.sum_scores, cells.gold, factor * cells.logits))
        assert all(map(math.isfinite, (found.false_positive_rate, found.false_negative_rate, found.slopes[0])))


def test_single_scores_without_gold_say_nothing_of_the_rates() -> None:
    assert math.isinf(fit_channel(simulated(6000, 1, (0.3, 0.3), 0.0, 0.0, 0)).youden_std)


def test_a_value_model_that_says_nothing_gets_no_weight() -> None:
    useless = simulated(4000, 1, (0.3, 0.3), 0.1, 1.0, 3)
    shuffled = CellTable(useless.num_scores, useless.sum_scores, useless.gold, useless.logits[::-1])
    assert fit_channel(useless).slopes[0] > 0.7
    assert fit_channel(shuffled).slopes[0] < 0.15


def test_of_two_views_each_gets_the_weight_of_what_it_adds() -> None:
    """Two that know different things are added up; one that knows nothing, or what the other knows, adds nothing."""
    cells = simulated(4000, 1, (0.3, 0.3), 0.1, 1.0, 3)
    noise = np.random.default_rng(0).normal(size=(4000, 1))
    truths = (torch.rand(4000, generator=torch.Generator().manual_seed(3)) < 0.5).double().numpy()[:, None]

    def slopes(second: np.ndarray[Any, Any]) -> tuple[float, ...]:
        logits = np.concatenate([cells.logits, second], axis=1)
        return fit_channel(CellTable(cells.num_scores, cells.sum_scores, cells.gold, logits)).slopes

    alone = fit_channel(cells).slopes[0]
    assert list(slopes(noise)) == [pytest.approx(alone, abs=1e-3), 0.0]
    assert list(slopes(cells.logits)) == [pytest.approx(alone, abs=1e-3), 0.0]
    assert min(slopes(truths - 0.5 + noise)) > 0.6


def test_evidence_is_the_likelihood_ratio() -> None:
    channel = Channel(0.2, 0.3, (1.0,), 0.0, 0.1)
    n, s = 5.0, 2.0
    ratio = (0.7**s * 0.3 ** (n - s)) / (0.2**s * 0.8 ** (n - s))
    assert channel.evidence(n, s) == pytest.approx(math.log(ratio))
    assert Channel(0.55, 0.55, (1.0,), 0.0, 0.1).evidence(1.0, 1.0) < 0  # a score that says the opposite


def test_without_a_score_the_rates_are_those_of_the_prior() -> None:
    """Beta(1.5, 2.5) as log-odds is highest at 1.5 / 4; the value model has no weight, and J is not known at all."""
    none = np.zeros(3)
    found = fit_channel(CellTable(none, none, np.full(3, math.nan), none[:, None]))
    rates_and_prior = [found.false_positive_rate, found.false_negative_rate, *found.slopes, found.intercept]
    assert rates_and_prior == pytest.approx([0.375, 0.375, 0.0, 0.0], abs=1e-4)
    assert math.isinf(found.youden_std)


def log_posterior(point: tuple[float, ...], cells: CellTable) -> float:
    """Written out cell by cell: the likelihood with the truth summed out, times the priors."""
    fp, fn, slope, intercept = point
    total = sum(1.5 * math.log(rate) + 2.5 * math.log(1 - rate) for rate in (fp, fn))
    total -= slope**2 / 2 + (intercept / 2.0) ** 2 / 2
    for n, s, gold, z in zip(cells.num_scores, cells.sum_scores, cells.gold, cells.logits[:, 0], strict=True):
        right = 1 / (1 + math.exp(-(slope * z + intercept)))
        if_right, if_wrong = right * (1 - fn) ** s * fn ** (n - s), (1 - right) * fp**s * (1 - fp) ** (n - s)
        if math.isnan(gold):
            total += math.log(if_right + if_wrong)
        else:
            total += math.log(if_right if gold == 1.0 else if_wrong)
    return total


@pytest.mark.parametrize("seed", range(3))
def test_the_fit_is_a_maximum_of_the_posterior(seed: int) -> None:
    """Few cells, so that the prior counts: a step of .02 in any direction is downhill."""
    cells = simulated(40, 3, (0.25, 0.35), 0.4, 1.0, seed)
    found = fit_channel(cells)
    best = (found.false_positive_rate, found.false_negative_rate, *found.slopes, found.intercept)
    height = log_posterior(best, cells)
    for index, step in itertools.product(range(4), (-0.02, 0.02)):
        beside = tuple(value + step * (i == index) for i, value in enumerate(best))
        if index != 2 or beside[2] >= 0.0:
            assert log_posterior(beside, cells) < height
    again = fit_channel(cells, start=found)
    assert again.youden_j == pytest.approx(found.youden_j, abs=1e-3)
