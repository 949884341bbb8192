"""Rates of simulated rewards are found where they can be, and refused where they cannot."""

from __future__ import annotations

import numpy as np
import pytest

from rollout.audit.cells.counts import CellCounts
from rollout.audit.cells.measured import MeasuredRates, MeasureSettings
from rollout.audit.cells.rates import measure_rates
from rollout.audit.intervals import Estimate
from tests.rollout.audit.cells.scored_cells import scored_cells

FEW = MeasureSettings(num_resamples=100)


def covers(estimate: Estimate | None, truth: float) -> bool:
    assert estimate is not None
    return estimate.holds(truth)


def known(rates: MeasuredRates) -> tuple[bool, bool, bool]:
    """Whether the transient, the persistent and the total rates are."""
    return rates.rho_plus is not None, rates.pi_plus is not None, rates.total_plus is not None


@pytest.mark.slow
@pytest.mark.parametrize(("transient", "repetitions"), [((0.4, 0.1), 50), ((0.4, 0.4), 20)])
def test_transient_rates_without_gold_are_close_and_their_intervals_cover(
    transient: tuple[float, float], repetitions: int
) -> None:
    """Cells of 1 to 40 calls, and as often cells of at most two. A fit of the second rates takes five times as long."""
    close = covered = identified = 0
    for seed in range(repetitions):
        rng = np.random.default_rng([seed, 7])
        found = measure_rates(scored_cells(rng, transient=transient, num_cells=1200), settings=FEW)
        assert not found.anchored
        if found.rho_plus is None or found.rho_minus is None:
            continue
        identified += 1
        errors = [found.rho_plus.value - transient[0], found.rho_minus.value - transient[1]]
        close += max(map(abs, errors)) < 0.03
        covered += covers(found.rho_plus, transient[0]) + covers(found.rho_minus, transient[1])
        twice = measure_rates(scored_cells(rng, transient=transient, calls=(1, 2)), settings=FEW)
        assert known(twice) == (False, False, False)
        assert twice.reasons == ("transient rates: 0 cells were scored 3 times or more, it takes at least 30",)
    assert identified >= 0.8 * repetitions
    assert close >= 0.9 * identified
    assert covered >= 0.9 * 2 * identified


def test_a_reward_without_errors_has_rates_of_zero_within_intervals_that_reach_zero() -> None:
    found = measure_rates(scored_cells(np.random.default_rng(0), transient=(0.0, 0.0), num_cells=200), settings=FEW)
    for rate in (found.rho_plus, found.rho_minus):
        assert rate is not None
        assert rate.value < 1e-6
        assert rate.low < 1e-6
        assert 1e-5 < rate.high < 0.01  # a rate that shows no error in so many calls may still be above 0


def test_with_gold_and_repeats_both_kinds_are_told_apart() -> None:
    counts = scored_cells(
        np.random.default_rng(1), transient=(0.3, 0.2), persistent=(0.1, 0.25), gold_share=0.4, num_cells=2000
    )
    found = measure_rates(counts, settings=FEW)
    assert known(found) == (True, True, True)
    assert found.anchored
    assert found.reasons == ()
    truths = {"rho_plus": 0.3, "rho_minus": 0.2, "pi_plus": 0.1, "pi_minus": 0.25, "share": 0.4}
    truths |= {"total_plus": 0.1 * 0.8 + 0.9 * 0.3, "total_minus": 0.25 * 0.7 + 0.75 * 0.2}
    for name, truth in truths.items():
        interval = getattr(found, name)
        assert interval.value == pytest.approx(truth, abs=0.04), name
        assert interval.low - 0.01 <= truth <= interval.high + 0.01, name


def test_gold_of_cells_scored_once_knows_the_total_error_only_and_says_so() -> None:
    counts = scored_cells(
        np.random.default_rng(2),
        transient=(0.2, 0.3),
        persistent=(0.1, 0.2),
        calls=(1, 1),
        gold_share=0.3,
        num_cells=3000,
    )
    found = measure_rates(counts, settings=FEW)
    assert known(found) == (False, False, True)
    assert covers(found.total_plus, 0.1 * 0.7 + 0.9 * 0.2)
    assert covers(found.total_minus, 0.2 * 0.8 + 0.8 * 0.3)
    assert found.reasons[1] == "persistent rates: without repeats gold knows only the total error of a score"


@pytest.mark.slow
def test_few_labels_leave_the_persistent_rates_unknown_but_not_the_transient_ones() -> None:
    counts = scored_cells(np.random.default_rng(3), transient=(0.2, 0.2), persistent=(0.2, 0.2), gold_share=0.02)
    found = measure_rates(counts, settings=FEW)
    assert known(found) == (True, False, False)
    assert [reason.split(":")[0] for reason in found.reasons] == ["persistent rates", "total rates"]
    assert "gold labels" in found.reasons[0]
    assert not found.anchored


def test_scores_that_are_coins_are_not_identified() -> None:
    found = measure_rates(scored_cells(np.random.default_rng(4), transient=(0.5, 0.5)), settings=FEW)
    assert known(found) == (False, False, False)
    assert found.reasons == ("transient rates: scores of different cells differ no more than those of one coin",)


def test_a_class_of_verdict_that_never_occurs_has_no_rate() -> None:
    found = measure_rates(scored_cells(np.random.default_rng(5), transient=(0.3, 0.1), share=1.0), settings=FEW)
    assert known(found) == (False, False, False)


def test_a_reward_wrong_more_often_than_right_is_never_silently_turned_round() -> None:
    """Without gold, 1 and 0 have no meaning but for the assumption, which is stated; gold settles it."""
    rng = np.random.default_rng(6)
    found = measure_rates(scored_cells(rng, transient=(0.7, 0.7)), settings=FEW)
    assert found.rho_plus is not None
    assert found.rho_minus is not None
    assert found.rho_plus.value + found.rho_minus.value < 1.0
    assert not found.anchored
    with_gold = measure_rates(scored_cells(rng, transient=(0.7, 0.7), gold_share=0.3), settings=FEW)
    assert with_gold.anchored
    assert with_gold.pi_plus is not None
    assert with_gold.pi_plus.value > 0.95  # the verdict is the wrong way round, for good
    assert with_gold.total_plus is not None
    assert with_gold.total_plus.value == pytest.approx(0.7, abs=0.03)
    once = measure_rates(scored_cells(rng, transient=(0.7, 0.6), calls=(1, 1), gold_share=0.5), settings=FEW)
    assert once.total_minus is not None
    assert once.total_minus.value == pytest.approx(0.6, abs=0.08)


def test_exclusive_cells_betray_a_reward_that_is_turned_round() -> None:
    rng = np.random.default_rng(7)
    cells = scored_cells(rng, transient=(0.7, 0.7), share=0.8, exclusive=True, num_cells=400, calls=(1, 20))
    found = measure_rates(cells, exclusive=True, settings=MeasureSettings(num_resamples=20))
    assert known(found) == (False, False, False)
    assert "only gold labels can settle" in found.reasons[0]


def test_the_share_of_prompts_with_a_right_answer_is_found_where_cells_are_exclusive() -> None:
    rng = np.random.default_rng(8)
    cells = scored_cells(rng, transient=(0.3, 0.2), share=0.8, exclusive=True, calls=(1, 20))
    found = measure_rates(cells, exclusive=True, settings=MeasureSettings(num_resamples=40))
    assert found.share is not None
    assert covers(found.share, 0.8)
    assert covers(found.rho_plus, 0.3)
    assert found.share.width < 0.25


@pytest.mark.parametrize("exclusive", [False, True])
def test_the_order_of_cells_does_not_matter(exclusive: bool) -> None:
    rng = np.random.default_rng(9)
    counts = scored_cells(rng, transient=(0.2, 0.2), num_cells=200, gold_share=0.3, exclusive=exclusive)
    order = rng.permutation(len(counts))
    shuffled = CellCounts.of(counts.calls[order], counts.ones[order], counts.prompts[order], counts.gold[order])
    settings = MeasureSettings(num_resamples=20, max_width=0.5, max_width_with_gold=0.5)
    first, second = (measure_rates(c, exclusive=exclusive, settings=settings) for c in (counts, shuffled))
    assert first == second
    assert first.pi_plus is not None


def test_cells_without_calls_add_nothing_and_few_prompts_are_refused() -> None:
    counts = scored_cells(np.random.default_rng(10), transient=(0.2, 0.2), num_cells=200)
    more = CellCounts.of(
        *(np.append(x, y) for x, y in zip((counts.calls, counts.ones, counts.prompts), (0, 0, 999), strict=True))
    )
    assert measure_rates(more, settings=FEW) == measure_rates(counts, settings=FEW)
    few = measure_rates(CellCounts.of(counts.calls[:40], counts.ones[:40], counts.prompts[:40]))
    assert few.reasons == ("10 prompts are too few for intervals: it takes 20",)
    assert known(measure_rates(CellCounts.of([], []))) == (False, False, False)
    with pytest.raises(ValueError, match="num_resamples at least 20"):
        MeasureSettings(num_resamples=3)
