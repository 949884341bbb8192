"""Metric values that know how to merge across micro-batches and ranks, so that nothing is averaged twice."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Mean:
    """A weighted mean, kept as sum and weight."""

    total: float
    weight: float

    def merge(self, other: Mean) -> Mean:
        """The mean over both sets of observations."""
        return Mean(self.total + other.total, self.weight + other.weight)

    @property
    def value(self) -> float:
        """Total over weight; NaN when nothing was observed."""
        return self.total / self.weight if self.weight else float("nan")


@dataclass(frozen=True, slots=True)
class Sum:
    """A plain sum or count."""

    value: float

    def merge(self, other: Sum) -> Sum:
        """The sum of both."""
        return Sum(self.value + other.value)


@dataclass(frozen=True, slots=True)
class Max:
    """The largest observation."""

    value: float

    def merge(self, other: Max) -> Max:
        """The larger of both."""
        return Max(max(self.value, other.value))


@dataclass(frozen=True, slots=True)
class Last:
    """A value that is the same wherever it was taken (a learning rate, a running scale)."""

    value: float

    def merge(self, other: Last) -> Last:
        """The later of both."""
        return other


@dataclass(frozen=True, slots=True)
class EffectiveShare:
    """Effective sample size of importance weights over their number, (sum w)^2 / (n * sum w^2), in (0, 1]."""

    total: float
    total_squares: float
    count: float

    def merge(self, other: EffectiveShare) -> EffectiveShare:
        """The share over both sets of weights."""
        return EffectiveShare(
            self.total + other.total, self.total_squares + other.total_squares, self.count + other.count
        )

    @property
    def value(self) -> float:
        """NaN when nothing was observed."""
        return self.total**2 / (self.count * self.total_squares) if self.total_squares else float("nan")


@dataclass(frozen=True, slots=True)
class Percentile:
    """A percentile of many observations, kept as at most ``RESOLUTION`` order statistics of equal weight.

    Exact up to that many observations; beyond, the rank is off by about 1 / RESOLUTION with each merge.

    Attributes:
        level: in [0, 1].
        points: ascending; each stands for ``weight / len(points)`` observations.
        weight: number of observations.
    """

    RESOLUTION: ClassVar[int] = 512

    level: float
    points: tuple[float, ...]
    weight: float

    @classmethod
    def of(cls, level: float, observations: Iterable[float]) -> Percentile:
        """Summarise some observations."""
        return cls.of_sorted(level, sorted(observations))

    @classmethod
    def of_sorted(cls, level: float, ordered: Sequence[float]) -> Percentile:
        """Summarise observations that are in ascending order, for several levels at the cost of one sort."""
        num = len(ordered)
        count = min(num, cls.RESOLUTION)
        # as _thin() has it for weights of 1: the first observation up to which a share (k + 1/2) / count lies
        places = range(num) if num == count else [math.ceil((k + 0.5) / count * num) - 1 for k in range(count)]
        return cls(level, tuple(ordered[place] for place in places), float(num))

    def merge(self, other: Percentile) -> Percentile:
        """The same percentile over both sets of observations."""
        both = [(x, part.weight / len(part.points)) for part in (self, other) for x in part.points]
        return Percentile(self.level, _thin(sorted(both), self.RESOLUTION), self.weight + other.weight)

    @property
    def value(self) -> float:
        """The observation at this level (nearest rank); NaN when nothing was observed."""
        if not self.points:
            return float("nan")
        return self.points[min(int(self.level * len(self.points)), len(self.points) - 1)]


def _thin(ordered: list[tuple[float, float]], limit: int) -> tuple[float, ...]:
    """Values of equal weight that stand for ascending (value, weight) pairs, at most ``limit`` of them."""
    weights = {weight for _, weight in ordered}
    if len(ordered) <= limit and len(weights) <= 1:
        return tuple(value for value, _ in ordered)
    total = sum(weight for _, weight in ordered)
    count = min(limit, max(1, round(total)))
    points, reached, index = [], ordered[0][1], 0
    for k in range(count):
        while reached < (k + 0.5) / count * total and index < len(ordered) - 1:
            index += 1
            reached += ordered[index][1]
        points.append(ordered[index][0])
    return tuple(points)


MetricValue = Mean | Sum | Max | Last | EffectiveShare | Percentile
Metrics = dict[str, MetricValue]
"""Metric key, ``area/quantity``, to value."""


def merge_metrics(parts: Iterable[Mapping[str, MetricValue]]) -> Metrics:
    """Merge metrics of several micro-batches, ranks or workers, key by key.

    Raises:
        TypeError: one key carries two kinds of value.
    """
    merged: Metrics = {}
    for part in parts:
        for key, value in part.items():
            if key in merged:
                if type(merged[key]) is not type(value):
                    raise TypeError(f"metric {key!r} is both {type(merged[key]).__name__} and {type(value).__name__}")
                merged[key] = merged[key].merge(value)  # type: ignore[arg-type]
            else:
                merged[key] = value
    return merged


def to_floats(metrics: Mapping[str, MetricValue]) -> dict[str, float]:
    """Plain numbers for a metrics file."""
    return {key: float(value.value) for key, value in metrics.items()}
