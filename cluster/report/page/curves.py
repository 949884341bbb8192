"""Curves for the page: thinned to what a screen can show, and seeds as one line with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from cluster.report.metric_table import Curve
from cluster.report.run_record import RunRecord

MAX_POINTS, MIN_POINTS = 400, 60
"""Points of one curve on the page, at most; and at least, however many runs there are."""
MAX_NUMBERS = 90_000
"""Numbers of all curves together, at most, but for MIN_POINTS of each."""
DIGITS = 4
LEAST_J = 0.1
"""1 - FPR - FNR below which a mean is not corrected by it: the result would be mostly noise."""
ESTIMATED = "derived/estimated_mean"


class Axes:
    """Steps that many curves share, written once."""

    def __init__(self) -> None:
        self.steps: list[list[int]] = []
        self._known: dict[tuple[int, ...], int] = {}

    def number(self, steps: Sequence[int]) -> int:
        """The number of an axis."""
        key = tuple(steps)
        if key not in self._known:
            self._known[key] = len(self.steps)
            self.steps.append(list(key))
        return self._known[key]


def points_per_curve(num_curves: int) -> int:
    """How many points each curve may have on the page."""
    return max(MIN_POINTS, min(MAX_POINTS, MAX_NUMBERS // max(1, num_curves)))


def all_curves(run: RunRecord) -> dict[str, Curve]:
    """Every metric of a run, and what is derived from some."""
    found = {key: run.metrics.curve(key) for key in run.metrics.keys if key in run.metrics}
    estimated = estimated_mean(run)
    return {**found, ESTIMATED: estimated} if len(estimated) else found


def estimated_mean(run: RunRecord) -> Curve:
    """The true mean reward of each batch, as far as the scores and the estimated error rates tell it.

    (observed - FPR) / (1 - FPR - FNR), for 0/1 scores, with the rates that the run knew at that step.
    """
    for prefix in ("correction/evidence_", "trust/"):
        rates = [dict(_points(run, f"{prefix}false_{kind}_rate")) for kind in ("positive", "negative")]
        points = []
        for step, observed in _points(run, "reward/observed_mean"):
            if step in rates[0] and step in rates[1]:
                j = 1.0 - rates[0][step] - rates[1][step]
                if j > LEAST_J:
                    points.append((step, min(1.0, max(0.0, (observed - rates[0][step]) / j))))
        if points:
            return Curve(tuple(s for s, _ in points), tuple(v for _, v in points))
    return Curve((), ())


def _points(run: RunRecord, key: str) -> list[tuple[int, float]]:
    curve = run.metrics.curve(key)
    return list(zip(curve.steps, curve.values, strict=True))


def thin(curve: Curve, most: int) -> Curve:
    """Means of neighbouring points, so that there are at most ``most``."""
    if len(curve) <= most:
        return curve
    pieces = np.array_split(np.arange(len(curve)), most)
    steps = tuple(curve.steps[int(piece[-1])] for piece in pieces)
    return Curve(steps, tuple(float(np.mean([curve.values[int(i)] for i in piece])) for piece in pieces))


def written(curve: Curve, axes: Axes) -> list[Any]:
    """A curve as the page has it: the number of its axis, and its values."""
    return [axes.number(curve.steps), [number(value) for value in curve.values]]


def aggregate(curves: Sequence[Curve], axes: Axes, most: int) -> list[Any]:
    """Mean over seeds with its Student t interval of 95 %, at the steps that every seed has.

    Returns:
        The number of the axis, means, and both ends of the intervals.
    """
    tables = [dict(zip(curve.steps, curve.values, strict=True)) for curve in curves]
    steps = [step for step in curves[0].steps if all(step in table for table in tables)]
    by_seed = [thin(Curve(tuple(steps), tuple(table[step] for step in steps)), most) for table in tables]
    values = np.array([curve.values for curve in by_seed])
    # As cluster.study.statistics.mean_interval, for all points at once.
    means = values.mean(axis=0)
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values, axis=0)
    return [
        axes.number(by_seed[0].steps),
        [number(value) for value in means],
        [number(value) for value in means - half],
        [number(value) for value in means + half],
    ]


def number(value: float | None, digits: int = DIGITS) -> float | int | None:
    """A number with so many digits that count; None for what is not finite."""
    if value is None or not math.isfinite(value):
        return None
    rounded = float(f"{value:.{digits}g}")
    return int(rounded) if rounded == int(rounded) and abs(rounded) < 1e15 else rounded
