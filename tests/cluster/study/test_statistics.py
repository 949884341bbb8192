"""Intervals and tests of a study against scipy's own functions, and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cluster.study.statistics import (
    bonferroni_t,
    interquartile_mean,
    mean_interval,
    paired_difference,
    sign_flip_p_value,
    simultaneous_differences,
    stratified_bootstrap,
)

OURS = np.array([0.91, 0.88, 0.95, 0.90, 0.93, 0.89])
THEIRS = np.array([0.85, 0.86, 0.90, 0.91, 0.88, 0.80])


def test_mean_interval_is_that_of_student() -> None:
    found = mean_interval(OURS, 0.9)
    low, high = stats.t.interval(0.9, len(OURS) - 1, loc=OURS.mean(), scale=OURS.std(ddof=1) / np.sqrt(len(OURS)))
    assert (found.value, found.low, found.high) == pytest.approx((OURS.mean(), low, high), abs=1e-12)


def test_paired_difference_is_that_of_the_paired_t_test() -> None:
    found = paired_difference(OURS, THEIRS)
    low, high = stats.ttest_rel(OURS, THEIRS).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
    assert found.value == pytest.approx(0.26 / 6)
    p_value = stats.ttest_rel(OURS, THEIRS).pvalue
    assert found.excludes_zero is bool(p_value < 0.05)


def test_one_seed_has_no_interval() -> None:
    found = mean_interval(np.array([0.5]))
    assert found.value == 0.5
    assert np.isnan([found.low, found.high]).all()
    assert not found.excludes_zero
    assert np.isnan(stratified_bootstrap(np.array([[0.5, 0.7]])).low)
    alone = simultaneous_differences({"a": np.array([0.5]), "b": np.array([0.7])}, "a")["b"]
    assert alone.value == pytest.approx(0.2)
    assert np.isnan(alone.low)


def test_interquartile_mean_drops_a_quarter_on_each_side() -> None:
    scores = np.array([[0.0, 0.4], [0.5, 0.6], [0.7, 0.8], [0.9, 100.0]])
    assert interquartile_mean(scores) == pytest.approx((0.5 + 0.6 + 0.7 + 0.8) / 4)


def test_bootstrap_of_one_task_is_scipys() -> None:
    scores = np.random.default_rng(3).normal(0.8, 0.05, 12)
    ours = stratified_bootstrap(scores, num_resamples=20_000)
    theirs = stats.bootstrap(
        (scores,),
        lambda x, axis: stats.trim_mean(x, 0.25, axis=axis),
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.003)


def test_bootstrap_is_stratified_by_task() -> None:
    """Two tasks without any spread within them: whatever is drawn, each has its share, so the interval is a point."""
    scores = np.column_stack([np.full(6, 0.2), np.full(6, 0.8)])
    found = stratified_bootstrap(scores)
    assert (found.low, found.value, found.high) == pytest.approx((0.5, 0.5, 0.5))
    mixed = stats.bootstrap((scores.ravel(),), np.mean, rng=np.random.default_rng(0)).confidence_interval
    assert mixed.high - mixed.low > 0.2


def test_simultaneous_intervals_of_one_method_are_the_paired_ones() -> None:
    found = simultaneous_differences({"base": THEIRS, "new": OURS}, "base")["new"]
    alone = paired_difference(OURS, THEIRS)
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))


def test_few_seeds_get_bonferroni() -> None:
    methods = {"base": THEIRS[:4], "a": OURS[:4], "b": THEIRS[:4] + np.array([0.1, 0.0, 0.0, 0.1])}
    found = simultaneous_differences(methods, "base")
    multiple = stats.t.ppf(1 - 0.05 / 4, 3)
    assert bonferroni_t(4, 2, 0.95) == pytest.approx(multiple)
    half = multiple * stats.sem(OURS[:4] - THEIRS[:4])
    assert found["a"].high - found["a"].value == pytest.approx(half)
    assert set(found) == {"a", "b"}


def test_equal_methods_cost_nothing_and_different_ones_at_most_bonferroni() -> None:
    """What is drawn is drawn together: ten copies of one method are one comparison."""
    rng = np.random.default_rng(0)
    base, noise = np.zeros(10), rng.normal(size=10)
    copies = simultaneous_differences({"base": base, **{f"copy-{i}": noise for i in range(10)}}, "base")["copy-0"]
    apart = simultaneous_differences({"base": base, **{f"own-{i}": rng.normal(size=10) for i in range(10)}}, "base")
    error = stats.sem(noise)
    assert (copies.high - copies.value) / error < 0.85 * bonferroni_t(10, 10, 0.95)
    assert bonferroni_t(10, 1, 0.95) - 1e-9 <= (copies.high - copies.value) / error
    widths = [(found.high - found.value) for found in apart.values()]
    assert all(width > 0 for width in widths)


def test_simultaneous_intervals_cover_all_differences_at_once() -> None:
    """Five methods with a true difference of 0.1 each; the share of studies in which all five intervals hold it."""
    rng = np.random.default_rng(5)
    covered = 0
    for study in range(200):
        base = rng.normal(size=10)
        methods = {f"m{i}": base + 0.1 + rng.normal(size=10) for i in range(5)}
        found = simultaneous_differences({"base": base, **methods}, "base", num_resamples=1000, seed=study)
        covered += all(estimate.low <= 0.1 <= estimate.high for estimate in found.values())
    assert stats.binomtest(covered, 200, 0.95).pvalue > 0.01, covered


def test_sign_flips_of_six_equal_signs() -> None:
    assert sign_flip_p_value(np.array([0.1, 0.2, 0.1, 0.3, 0.2, 0.1])) == pytest.approx(2 / 2**6)


def test_pairs_must_be_whole() -> None:
    with pytest.raises(ValueError, match="pairs need as many"):
        paired_difference(OURS, THEIRS[:3])
    with pytest.raises(ValueError, match="pairs need as many"):
        simultaneous_differences({"a": OURS, "b": THEIRS[:3]}, "a")
