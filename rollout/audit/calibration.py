"""Calibration: of the responses that score about s, what share is right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rollout.audit.intervals import LEVEL, Estimate, wilson

MIN_IN_BIN = 10
"""Fewest responses that make a bin of their own."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Neighbouring scores.

    Attributes:
        mean_score: their mean.
        right: share of gold 1 among them, with Wilson's interval; its ``count`` is the size of the bin.
    """

    mean_score: float
    right: Estimate


@dataclass(frozen=True, slots=True)
class Calibration:
    """A reliability curve.

    Attributes:
        bins: in ascending order of score.
        error: expected calibration error, the mean of |mean score - share right| over responses; None unless scores
            lie in [0, 1]. Biased upwards by the chance error of the bins: see ``noise_floor``.
        noise_floor: what ``error`` would be on average for a perfectly calibrated reward in the same bins.
    """

    bins: tuple[Bin, ...]
    error: float | None
    noise_floor: float | None


def calibration(
    scores: Sequence[float], gold: Sequence[float], num_bins: int = 10, level: float = LEVEL
) -> Calibration:
    """The reliability curve of ``scores`` for gold labels in {0, 1}.

    Bins hold about equally many responses and never part equal scores, so a binary reward has two.

    Raises:
        ValueError: a gold label is neither 0 nor 1, or there are no responses.
    """
    if not scores or any(label not in (0.0, 1.0) for label in gold):
        raise ValueError("calibration needs at least one response, and gold labels of 0 or 1")
    order = sorted(zip(scores, gold, strict=True))
    size = max(MIN_IN_BIN, -(-len(order) // num_bins))
    groups: list[list[tuple[float, float]]] = [[]]
    for score, label in order:
        full = len(groups[-1]) >= size
        # Equal scores stay together: their order among each other says nothing.
        if full and groups[-1][-1][0] != score:
            groups.append([])
        groups[-1].append((score, label))
    if len(groups) == 1 and len({score for score, _ in order}) == 2:  # a binary score in a small sample
        low = order[0][0]
        groups = [[pair for pair in order if pair[0] == low], [pair for pair in order if pair[0] != low]]
    bins = tuple(_bin(group, level) for group in groups)
    if not all(0.0 <= score <= 1.0 for score in scores):
        return Calibration(bins, None, None)
    error = sum(b.right.count * abs(b.mean_score - b.right.value) for b in bins) / len(order)
    floor = sum(b.right.count * _mean_deviation(b) for b in bins) / len(order)
    return Calibration(bins, error, floor)


def _bin(group: Sequence[tuple[float, float]], level: float) -> Bin:
    right = sum(label for _, label in group)
    return Bin(sum(score for score, _ in group) / len(group), wilson(right, len(group), level))


def _mean_deviation(found: Bin) -> float:
    """Mean |share - its expectation| of a binomial share, in the normal approximation: sqrt(2 / pi) times its std."""
    p = found.mean_score
    return math.sqrt(2.0 / math.pi * p * (1.0 - p) / found.right.count)
