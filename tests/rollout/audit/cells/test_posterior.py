"""Posteriors of cells against an enumeration of every hypothesis, and at the edges where formulas break."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.audit.cells.counts import Array, CellCounts
from rollout.audit.cells.posterior import (
    GoldNoise,
    PersistentRates,
    TransientRates,
    independent_posterior,
    log_evidence,
)

CALM = settings(max_examples=40, deadline=None)
INSIDE = st.floats(0.01, 0.99)
NO_ERRORS = TransientRates(rho_plus=0.0, rho_minus=0.0)


def enumerated(
    counts: CellCounts,
    prior: Array,
    transient: TransientRates,
    persistent: PersistentRates,
    gold_noise: GoldNoise,
) -> list[float]:
    """P(right) of each cell: all truths and all verdicts of a prompt's cells, as products of probabilities."""
    found = [math.nan] * len(counts)
    for prompt in set(counts.prompts.tolist()):
        cells = [k for k in range(len(counts)) if counts.prompts[k] == prompt]
        total, right = 0.0, dict.fromkeys(cells, 0.0)
        for truths in itertools.product((0, 1), repeat=len(cells)):
            weight = math.prod(prior[k] if c else 1.0 - prior[k] for k, c in zip(cells, truths, strict=True))
            for k, c in zip(cells, truths, strict=True):
                weight *= seen_given_truth(counts, k, c, transient, persistent, gold_noise)
            total += weight
            for k, c in zip(cells, truths, strict=True):
                right[k] += weight * c
        for k in cells:
            found[k] = right[k] / total
    return found


def seen_given_truth(
    counts: CellCounts,
    k: int,
    truth: int,
    transient: TransientRates,
    persistent: PersistentRates,
    gold_noise: GoldNoise,
) -> float:
    """Probability of the scores of a cell in one order, and of its label."""
    seen = 0.0
    for verdict in (0, 1):
        on_one = persistent.pi_plus if truth == 0 else 1.0 - persistent.pi_minus
        says_one = transient.rho_plus if verdict == 0 else 1.0 - transient.rho_minus
        ones, zeros = counts.ones[k], counts.calls[k] - counts.ones[k]
        seen += float((on_one if verdict else 1.0 - on_one) * says_one**ones * (1.0 - says_one) ** zeros)
    says_right = gold_noise.false_right if truth == 0 else 1.0 - gold_noise.false_wrong
    return seen * {1.0: says_right, 0.0: 1.0 - says_right}.get(float(counts.gold[k]), 1.0)


def some_cells(rng: np.random.Generator) -> CellCounts:
    calls = rng.integers(0, 6, size=9)
    gold = rng.choice([0.0, 1.0, math.nan], p=[0.15, 0.15, 0.7], size=9)
    return CellCounts.of(calls, rng.binomial(calls, 0.5), rng.integers(0, 4, size=9) * 7, gold)


@given(
    seed=st.integers(0, 10_000),
    rates=st.tuples(INSIDE, INSIDE, INSIDE, INSIDE),
    gold=st.tuples(INSIDE, INSIDE),
)
@CALM
def test_every_hypothesis_enumerated(
    seed: int, rates: tuple[float, float, float, float], gold: tuple[float, float]
) -> None:
    rng = np.random.default_rng(seed)
    counts = some_cells(rng)
    transient = TransientRates(rho_plus=rates[0], rho_minus=rates[1])
    persistent = PersistentRates(pi_plus=rates[2], pi_minus=rates[3])
    noise = GoldNoise(false_right=gold[0], false_wrong=gold[1])
    prior = rng.uniform(0.05, 0.95, size=9)
    found = independent_posterior(counts, prior, transient, persistent, noise)
    wanted = enumerated(counts, prior, transient, persistent, noise)
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-12)


@given(prior=st.floats(1e-6, 1.0 - 1e-6), plus=INSIDE, minus=INSIDE)
@CALM
def test_one_call_moves_the_log_odds_of_the_prior_by_the_log_likelihood_ratio(
    prior: float, plus: float, minus: float
) -> None:
    q = independent_posterior(CellCounts.of([1, 1], [1, 0]), prior, TransientRates(rho_plus=plus, rho_minus=minus))
    before = math.log(prior / (1.0 - prior))
    assert np.log(q / (1.0 - q)) == pytest.approx(
        [before + math.log((1.0 - minus) / plus), before + math.log(minus / (1.0 - plus))], rel=1e-7, abs=1e-7
    )


def test_without_errors_the_posterior_is_the_observed_score() -> None:
    counts = CellCounts.of([1, 1, 5, 5], [0, 1, 0, 5])
    for prior in (1e-9, 0.3, 0.5, 1.0 - 1e-9):
        assert independent_posterior(counts, prior, NO_ERRORS).tolist() == [0.0, 1.0, 0.0, 1.0]


def test_contradictory_certainties_end_at_the_majority_and_at_the_prior_for_a_tie() -> None:
    counts = CellCounts.of([3, 3, 2], [2, 1, 1])
    q = independent_posterior(counts, 0.3, NO_ERRORS)
    assert q == pytest.approx([1.0, 0.0, 0.3], abs=1e-9)
    always_one = TransientRates(rho_plus=1.0, rho_minus=0.0)
    assert independent_posterior(CellCounts.of([2, 2], [2, 1]), 0.3, always_one) == pytest.approx([0.3, 0.3], abs=1e-9)
    # A prior that is certain, too: neither side gives way.
    assert independent_posterior(CellCounts.of([1, 1], [0, 1]), np.array([1.0, 0.0]), NO_ERRORS) == pytest.approx(
        [0.5, 0.5]
    )
    certain = independent_posterior(CellCounts.of([1, 0], [1, 0]), np.array([1.0, 0.0]), NO_ERRORS)
    assert certain.tolist() == [1.0, 0.0]


def test_a_reward_that_is_wrong_more_often_than_right_is_read_backwards() -> None:
    q = independent_posterior(CellCounts.of([4, 4], [4, 0]), 0.5, TransientRates(rho_plus=0.6, rho_minus=0.6))
    assert q == pytest.approx([0.4**4 / (0.4**4 + 0.6**4), 0.6**4 / (0.4**4 + 0.6**4)])


def test_gold_fixes_its_cell_and_a_noisy_label_only_moves_it() -> None:
    counts = CellCounts.of([3, 3], [0, 3], gold=[1.0, 0.0])
    assert independent_posterior(counts, np.array([0.0, 1.0]), NO_ERRORS).tolist() == [1.0, 0.0]
    noise = GoldNoise(false_right=0.1, false_wrong=0.2)
    q = independent_posterior(CellCounts.of([0, 0], [0, 0], gold=[1.0, 0.0]), 0.5, NO_ERRORS, gold_noise=noise)
    assert q == pytest.approx([0.8 / 0.9, 0.2 / 1.1])


@given(seed=st.integers(0, 10_000))
@CALM
def test_the_order_of_cells_and_the_names_of_prompts_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts, order = some_cells(rng), rng.permutation(9)
    shuffled = CellCounts.of(counts.calls[order], counts.ones[order], 1000 - counts.prompts[order], counts.gold[order])
    rates = TransientRates(rho_plus=0.3, rho_minus=0.2)
    first, second = (independent_posterior(c, 0.6, rates) for c in (counts, shuffled))
    assert second == pytest.approx(first[order], rel=1e-12)


def test_rates_may_differ_between_cells() -> None:
    plus, minus = np.array([0.1, 0.3]), np.array([0.2, 0.05])
    together = log_evidence(CellCounts.of([3, 4], [1, 2]), TransientRates(rho_plus=plus, rho_minus=minus))
    apart = [
        log_evidence(CellCounts.of([n], [s]), TransientRates(rho_plus=p, rho_minus=m))[0]
        for n, s, p, m in zip([3, 4], [1, 2], plus, minus, strict=True)
    ]
    assert together == pytest.approx(apart)


def test_persistent_errors_bound_what_any_number_of_calls_can_say() -> None:
    q = independent_posterior(
        CellCounts.of([100_000], [100_000]),
        0.5,
        TransientRates(rho_plus=0.1, rho_minus=0.1),
        PersistentRates(pi_plus=0.2, pi_minus=0.1),
    )
    assert q == pytest.approx([0.9 / 1.1])


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (([1], [2]), "0 <= ones <= calls"),
        (([1], [0], [-1]), "must not be negative"),
        (([1], [0], [0], [0.5]), "gold labels must be 0, 1 or NaN"),
        (([1, 2], [0]), "of one length"),
    ],
)
def test_impossible_counts_are_refused(fields: tuple[list[float], ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        CellCounts.of(*fields)


def test_rates_and_priors_outside_the_unit_interval_are_refused() -> None:
    with pytest.raises(ValueError, match="rho_minus must be in"):
        TransientRates(rho_plus=0.1, rho_minus=1.1)
    counts = CellCounts.of([1, 1], [1, 1], [0, 0])
    with pytest.raises(ValueError, match="prior must be in"):
        independent_posterior(counts, 1.5, NO_ERRORS)
