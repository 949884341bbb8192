"""What several samples of each prompt tell: the best of k, the majority of k, and how sure a mean over prompts is.

Each estimator is the mean over all subsets of k of the n samples that were drawn, so it is unbiased for what k fresh
samples would do, and has less variance than any one subset. Pure functions of numbers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, variance

from rollout.audit.intervals import Estimate, z_value

MIN_VARIANCE = 1e-12


def best_of(scores: Sequence[float], k: int) -> float:
    """The expected highest score of k of these samples, drawn without putting back.

    Of scores of 0 and 1 it is pass@k, 1 - C(n - c, k) / C(n, k) with c of n right (2107.03374, Eq. 1).

    Raises:
        ValueError: not 1 <= k <= the number of samples.
    """
    n = _checked(len(scores), k)
    ordered = sorted(scores)
    # The sample of rank i (from 0) is the highest of C(i, k - 1) subsets.
    return math.fsum(score * math.comb(i, k - 1) for i, score in enumerate(ordered)) / math.comb(n, k)


def majority_of(votes: Sequence[tuple[str, float]], k: int) -> float:
    """The expected score of the most frequent answer of k of these samples, drawn without putting back.

    Ties are broken at random. An answer's score is the mean over its samples, which are equal where answers decide.

    Args:
        votes: what each sample answers and its score; one whose answer is empty stands for itself.

    Raises:
        ValueError: not 1 <= k <= the number of samples.
    """
    n = _checked(len(votes), k)
    scores: dict[str, list[float]] = defaultdict(list)
    for index, (answer, score) in enumerate(votes):
        scores[answer or f"\x00{index}"].append(score)
    sizes = sorted(len(found) for found in scores.values())
    by_size: dict[int, list[float]] = defaultdict(list)
    for found in scores.values():
        by_size[len(found)].append(fmean(found))
    # Answers with the same number of samples win equally often, so the share is found once for each size.
    total = sum(_wins(sizes, size, k) * math.fsum(means) for size, means in by_size.items())
    return total / math.comb(n, k)


def _wins(sizes: Sequence[int], size: int, k: int) -> float:
    """Subsets of k in which one answer of this size wins; a tie of t answers counts 1 / t."""
    others = list(sizes)
    others.remove(size)
    return math.fsum(
        math.comb(size, count) * subsets / (ties + 1)
        for count in range(1, min(size, k) + 1)
        for ties, subsets in _subsets_below(others, count, k - count).items()
    )


def _subsets_below(sizes: Sequence[int], most: int, wanted: int) -> dict[int, int]:
    """Ways to draw ``wanted`` samples with at most ``most`` of each answer, by how many answers have ``most``."""
    ways: dict[tuple[int, int], int] = {(0, 0): 1}  # (samples drawn, answers with `most`)
    for size in sizes:
        following: dict[tuple[int, int], int] = defaultdict(int)
        for (drawn, ties), number in ways.items():
            for count in range(min(size, most, wanted - drawn) + 1):
                following[drawn + count, ties + (count == most)] += number * math.comb(size, count)
        ways = following
    return {ties: number for (drawn, ties), number in ways.items() if drawn == wanted}


def mean_interval(values: Sequence[float], num_draws: int = 1) -> Estimate | None:
    """The mean over prompts of numbers in [0, 1], with an interval for other prompts of the same kind.

    The score interval of a share (Wilson 1927) at the effective number of prompts, p (1 - p) / variance, as surveys
    have it (Korn, Graubard 1998): at 0 and 1, where the variance says nothing, it does not shrink to a point.

    Args:
        values: one number for each prompt, such as :func:`best_of`.
        num_draws: independent numbers behind each of them at most; a prompt counts for no more.

    Returns:
        None where there is no value, or one outside of [0, 1].
    """
    if not values or min(values) < 0.0 or max(values) > 1.0:
        return None
    count, p = len(values), fmean(values)
    spread = variance(values) if count > 1 else 0.0
    # Never fewer than the prompts: no law on [0, 1] spreads wider than that of 0 and 1.
    effective = min(max(p * (1.0 - p) / max(spread, MIN_VARIANCE), 1.0), float(num_draws)) * count
    z = z_value()
    centre = (p + z * z / (2.0 * effective)) / (1.0 + z * z / effective)
    reach = z / (1.0 + z * z / effective) * math.sqrt(p * (1.0 - p) / effective + (z / effective) ** 2 / 4.0)
    low = 0.0 if p == 0.0 else max(0.0, centre - reach)
    high = 1.0 if p == 1.0 else min(1.0, centre + reach)
    return Estimate(p, low, high, count)


def _checked(n: int, k: int) -> int:
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} of {n} samples; it must be from 1 to {n}")
    return n
