"""Estimates from several samples of each prompt, against all subsets one by one and against known laws."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations
from statistics import fmean

import pytest

from rollout.audit.intervals import wilson
from rollout.scoring.repeated import best_of, majority_of, mean_interval


def slow_best(scores: Sequence[float], k: int) -> float:
    return fmean(max(chosen) for chosen in combinations(scores, k))


def slow_majority(votes: Sequence[tuple[str, float]], k: int) -> float:
    """Over all subsets; the score of a tie is the mean of those that tie."""
    named = [(answer or f"#{index}", score) for index, (answer, score) in enumerate(votes)]
    scores: dict[str, list[float]] = defaultdict(list)
    for answer, score in named:
        scores[answer].append(score)
    found = []
    for chosen in combinations(named, k):
        counts = Counter(answer for answer, _ in chosen)
        most = max(counts.values())
        found.append(fmean(fmean(scores[answer]) for answer, count in counts.items() if count == most))
    return fmean(found)


@pytest.mark.parametrize("seed", range(20))
def test_both_are_the_mean_over_all_subsets(seed: int) -> None:
    draw = random.Random(seed)
    n = draw.randint(1, 8)
    votes = [(draw.choice(["", "a", "b", "c", "d"]), draw.choice([0.0, 1.0, 0.3])) for _ in range(n)]
    for k in range(1, n + 1):
        assert best_of([score for _, score in votes], k) == pytest.approx(
            slow_best([s for _, s in votes], k), abs=1e-12
        )
        assert majority_of(votes, k) == pytest.approx(slow_majority(votes, k), abs=1e-12)


@pytest.mark.parametrize(("n", "right", "k"), [(10, 3, 4), (10, 0, 4), (10, 10, 4), (10, 8, 4), (200, 7, 100)])
def test_of_zeros_and_ones_it_is_the_formula_of_pass_at_k(n: int, right: int, k: int) -> None:
    expected = 1.0 - math.comb(n - right, k) / math.comb(n, k)
    assert best_of([1.0] * right + [0.0] * (n - right), k) == pytest.approx(expected, abs=1e-12)


def test_both_are_unbiased_for_k_fresh_samples() -> None:
    """One prompt whose answer is right with .3 and one of two wrong ones with .4 and .3: k = 3 of n = 5."""
    draw = random.Random(0)
    answers = draw.choices(["right", "wrong", "other"], [0.3, 0.4, 0.3], k=5 * 4000)
    votes = [(answer, float(answer == "right")) for answer in answers]
    groups = [votes[start : start + 5] for start in range(0, len(votes), 5)]
    # Right wins with 3 or 2 of 3; all three different (3! ways) is a tie of three.
    majority = 0.3**3 + 3 * 0.3**2 * 0.7 + 6 * 0.3 * 0.4 * 0.3 / 3
    assert fmean(majority_of(group, 3) for group in groups) == pytest.approx(majority, abs=0.01)
    assert fmean(best_of([score for _, score in group], 3) for group in groups) == pytest.approx(1 - 0.7**3, abs=0.01)


@pytest.mark.parametrize("k", [0, 4])
def test_a_k_that_there_are_too_few_samples_for_is_refused(k: int) -> None:
    for call in (lambda: best_of([0.0] * 3, k), lambda: majority_of([("a", 0.0)] * 3, k)):
        with pytest.raises(ValueError, match=f"k = {k} of 3 samples; it must be from 1 to 3"):
            call()


def test_the_majority_of_many_samples_is_quick() -> None:
    votes = [(str(index % 21), float(index % 21 == 0)) for index in range(64)]
    assert 0.0 < majority_of(votes, 32) < 1.0


def test_the_interval_of_zeros_and_ones_is_that_of_a_share() -> None:
    found, share = mean_interval([1.0] * 3 + [0.0] * 7, num_draws=1), wilson(3, 10)
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((share.value, share.low, share.high))


def test_the_interval_has_a_width_where_all_prompts_agree() -> None:
    for value in (0.0, 0.5, 1.0):
        found = mean_interval([value] * 20, num_draws=4)
        assert found is not None and found.low <= value <= found.high and 0.03 < found.width < 0.3
    assert mean_interval([], 4) is None and mean_interval([0.5, 1.1], 4) is None and mean_interval([-0.1], 4) is None


@pytest.mark.parametrize(("easy", "k"), [(0.5, 1), (0.5, 4), (0.95, 1), (0.05, 4)])
def test_the_interval_covers_what_other_prompts_would_give(easy: float, k: int) -> None:
    """Prompts of two kinds, solved with .9 and .1: of 400 evaluations of 40 prompts at least 92 % hold the truth."""
    draw, held = random.Random(1), 0
    truth = easy * (1 - 0.1**k) + (1 - easy) * (1 - 0.9**k)
    for _ in range(400):
        values = []
        for _ in range(40):
            p = 0.9 if draw.random() < easy else 0.1
            values.append(best_of([float(draw.random() < p) for _ in range(8)], k))
        found = mean_interval(values, num_draws=8 // k)
        assert found is not None
        held += found.holds(truth)
    assert held >= 368
