"""Intervals and rankings of the audit: known values, coverage by simulation, degenerate input."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import pytest

from rollout.audit.calibration import calibration
from rollout.audit.intervals import clopper_pearson, difference, upper_tail, wilson
from rollout.audit.ranking import mid_ranks, pairwise_accuracy, spearman


@pytest.mark.parametrize(("hits", "count", "share"), [(3, 10, 0.2), (9, 10, 0.7), (50, 100, 0.5), (1, 200, 0.001)])
def test_binomial_tail_equals_exact_fractions(hits: int, count: int, share: float) -> None:
    p = Fraction(share)
    exact = sum(math.comb(count, k) * p**k * (1 - p) ** (count - k) for k in range(hits, count + 1))
    assert upper_tail(hits, count, share) == pytest.approx(float(exact), rel=1e-10)


def test_known_intervals() -> None:
    """Textbook values: Clopper-Pearson and Wilson for 10 of 100, rule of three, Newcombe's table II (a)."""
    exact = clopper_pearson(10, 100)
    assert (exact.low, exact.high) == pytest.approx((0.04900, 0.17622), abs=2e-5)
    assert clopper_pearson(0, 100).high == pytest.approx(1 - 0.025 ** (1 / 100), abs=1e-9)
    assert clopper_pearson(100, 100).low == pytest.approx(0.025 ** (1 / 100), abs=1e-9)
    score = wilson(10, 100)
    assert (score.low, score.high) == pytest.approx((0.05523, 0.17437), abs=2e-5)
    newcombe = difference((56, 70), (48, 80))
    assert (newcombe.low, newcombe.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)
    with pytest.raises(ValueError, match="0 <= hits <= count"):
        clopper_pearson(3, 2)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.5, 1.0])
def test_exact_interval_covers_at_least_its_level(share: float) -> None:
    """Summed over the binomial law, nothing simulated."""
    count, covered = 40, 0.0
    for hits in range(count + 1):
        law = math.comb(count, hits) * share**hits * (1 - share) ** (count - hits)
        covered += law * clopper_pearson(hits, count).holds(share)
    assert covered >= 0.95 - 1e-9


@pytest.mark.parametrize(("right", "wrong"), [(1.0, 0.0), (0.9, 0.1), (0.9, 0.3), (0.7, 0.1), (0.55, 0.45)])
def test_interval_of_j_covers_its_level(right: float, wrong: float) -> None:
    """2 000 draws of 150 and 150 labels: at least 93.5 % covered (95 % less 3 standard errors)."""
    rng, covered = random.Random(2), 0
    for _ in range(2_000):
        first = sum(rng.random() < right for _ in range(150))
        second = sum(rng.random() < wrong for _ in range(150))
        covered += difference((first, 150), (second, 150)).holds(right - wrong)
    assert covered >= 0.935 * 2_000


def test_pairwise_accuracy_is_the_area_under_the_curve() -> None:
    """Five responses by hand: 6 pairs, of which 4 right and one tie."""
    found = pairwise_accuracy([0.9, 0.4, 0.4, 0.1, 0.6], [1.0, 1.0, 0.0, 0.0, 0.0])
    assert found is not None
    assert found.count == 6
    assert found.value == pytest.approx(4.5 / 6)
    assert pairwise_accuracy([1.0, 2.0], [1.0, 1.0]) is None
    perfect = pairwise_accuracy([float(i) for i in range(40)], [float(i) for i in range(40)])
    assert perfect is not None
    assert perfect.high == 1.0 and perfect.low == pytest.approx(0.025 ** (1 / 20))


@pytest.mark.parametrize("grouped", [False, True])
def test_pairwise_interval_covers(grouped: bool) -> None:
    """Gold 0 or 1, score gold + N(0, 1): the truth is Phi(1 / sqrt 2) = .7602; offsets of prompts cancel in groups."""
    rng, covered, truth = random.Random(4), 0, 0.5 * (1.0 + math.erf(0.5))
    for _ in range(400):
        gold = [float(rng.random() < 0.5) for _ in range(100)]
        groups = [i // 5 for i in range(100)]
        offsets = [rng.gauss(0.0, 3.0) if grouped else 0.0 for _ in range(20)]
        observed = [label + rng.gauss(0.0, 1.0) + offsets[group] for label, group in zip(gold, groups, strict=True)]
        found = pairwise_accuracy(observed, gold, groups if grouped else None)
        assert found is not None
        covered += found.holds(truth)
    assert covered >= 0.92 * 400


def test_spearman_interval_covers() -> None:
    """Normal pairs of correlation .5 have a rank correlation of 6/pi asin(1/4)."""
    rng, covered = random.Random(5), 0
    for _ in range(400):
        first = [rng.gauss(0.0, 1.0) for _ in range(100)]
        second = [0.5 * x + math.sqrt(0.75) * rng.gauss(0.0, 1.0) for x in first]
        found = spearman(first, second)
        assert found is not None
        covered += found.holds(6.0 / math.pi * math.asin(0.25))
    assert covered >= 0.92 * 400


def test_ranks_and_degenerate_correlations() -> None:
    assert mid_ranks([3.0, 1.0, 3.0, 2.0]).tolist() == [3.5, 1.0, 3.5, 2.0]
    rising = spearman([1, 2, 3, 4, 5, 6], [1, 8, 27, 64, 125, 216])
    assert rising is not None and rising.value == pytest.approx(1.0)
    assert spearman([1.0] * 10, [float(i) for i in range(10)]) is None
    assert spearman([1.0, 2.0], [1.0, 2.0]) is None


def test_calibration_of_honest_and_boastful_scores() -> None:
    rng = random.Random(6)
    scores = [rng.random() for _ in range(3_000)]
    gold = [float(rng.random() < score) for score in scores]
    honest = calibration(scores, gold)
    assert len(honest.bins) == 10
    assert sum(found.right.count for found in honest.bins) == 3_000
    assert sum(found.right.holds(found.mean_score) for found in honest.bins) >= 8
    assert honest.error is not None and honest.noise_floor is not None
    assert honest.error < 2.0 * honest.noise_floor
    boastful = calibration([0.5 + score / 2.0 for score in scores], gold)
    assert boastful.error == pytest.approx(0.25, abs=0.03)


def test_calibration_of_binary_and_other_scores() -> None:
    binary = calibration([0.0, 1.0, 1.0, 0.0] * 25, [0.0, 1.0, 0.0, 0.0] * 25)
    assert [(found.mean_score, found.right.value) for found in binary.bins] == [(0.0, 0.0), (1.0, 0.5)]
    assert binary.error == pytest.approx(0.25)
    assert [found.mean_score for found in calibration([0.0, 1.0], [0.0, 1.0]).bins] == [0.0, 1.0]
    assert calibration([-3.0, 5.0] * 20, [0.0, 1.0] * 20).error is None
    with pytest.raises(ValueError, match="0 or 1"):
        calibration([0.5], [0.5])
