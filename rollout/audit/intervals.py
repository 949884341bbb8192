"""Estimates with intervals: of a share, of a difference of two shares."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

LEVEL = 0.95
"""Coverage that every interval here aims at unless it is told otherwise."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and the interval that holds the true one with the stated probability.

    Attributes:
        value: the point estimate.
        low, high: ends of the interval.
        count: observations behind it.
    """

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @property
    def width(self) -> float:
        """high - low."""
        return self.high - self.low

    def holds(self, truth: float) -> bool:
        """Whether ``truth`` lies in the interval."""
        return self.low <= truth <= self.high


def z_value(level: float = LEVEL) -> float:
    """The standard normal deviate that ``level`` of the distribution lies within, on both sides: 1.96 for .95."""
    return NormalDist().inv_cdf(0.5 + level / 2.0)


def clopper_pearson(hits: int, count: int, level: float = LEVEL) -> Estimate:
    """The exact interval of a binomial share: never covers less than ``level``, often more (Clopper, Pearson 1934).

    Raises:
        ValueError: not 0 <= hits <= count with count >= 1.
    """
    _check(hits, count)
    tail = (1.0 - level) / 2.0
    # At the ends the bound is known exactly, and bisection would only come close to it.
    low = 0.0 if hits == 0 else _root(lambda p: upper_tail(hits, count, p) - tail)
    high = 1.0 if hits == count else _root(lambda p: upper_tail(hits + 1, count, p) - (1.0 - tail))
    return Estimate(hits / count, low, high, count)


def share_interval(scores: Sequence[float]) -> Estimate | None:
    """:func:`clopper_pearson` of scores that are all 0 or 1; None where there are others, or none at all."""
    if not scores or any(score not in (0.0, 1.0) for score in scores):
        return None
    return clopper_pearson(int(sum(scores)), len(scores))


def wilson(hits: float, count: int, level: float = LEVEL) -> Estimate:
    """The score interval of a binomial share: covers ``level`` on average over the true share (Wilson 1927)."""
    _check(hits, count)
    z, p = z_value(level), hits / count
    centre = (p + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    low = 0.0 if hits == 0 else max(0.0, centre - reach)
    high = 1.0 if hits == count else min(1.0, centre + reach)
    return Estimate(p, low, high, count)


def difference(first: tuple[int, int], second: tuple[int, int], level: float = LEVEL) -> Estimate:
    """First share minus second, each (hits, count) of independent samples: Newcombe's hybrid score interval (1998)."""
    a, b = wilson(*first, level), wilson(*second, level)
    value = a.value - b.value
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    return Estimate(value, max(-1.0, low), min(1.0, high), first[1] + second[1])


def upper_tail(hits: int, count: int, share: float) -> float:
    """P(X >= hits) of a binomial X, summed term by term from the larger side inwards.

    Good to about 1e-12 for counts up to 1e5.
    """
    if hits <= 0:
        return 1.0
    if share <= 0.0 or hits > count:
        return 0.0
    if share >= 1.0:
        return 1.0
    if hits <= count * share:  # sum the short side
        return 1.0 - upper_tail(count - hits + 1, count, 1.0 - share)
    # The first term by logarithms: it may be far below the smallest float before the sum grows.
    log_term = math.lgamma(count + 1) - math.lgamma(hits + 1) - math.lgamma(count - hits + 1)
    term = math.exp(log_term + hits * math.log(share) + (count - hits) * math.log1p(-share))
    total, odds = 0.0, share / (1.0 - share)
    for k in range(hits, count + 1):
        total += term
        term *= (count - k) / (k + 1) * odds
        if term < total * 1e-17:
            break
    return min(1.0, total)


def _check(hits: float, count: int) -> None:
    if count < 1 or not 0 <= hits <= count:
        raise ValueError(f"a share needs 0 <= hits <= count and count >= 1, got {hits} of {count}")


def _root(increasing: Callable[[float], float], low: float = 0.0) -> float:
    """Where a function that increases on [low, 1] is 0, by bisection."""
    high = 1.0
    for _ in range(50):
        middle = (low + high) / 2.0
        low, high = (middle, high) if increasing(middle) < 0.0 else (low, middle)
    return (low + high) / 2.0
