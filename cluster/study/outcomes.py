"""What became of a run: numbers of one learning curve, and its class compared with clean rewards. Pure functions.

A curve is a score at ascending places (samples, or seconds of training). The places of two runs differ; they are
compared up to the place that both have reached, with straight lines between evaluations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import integrate

COLLAPSE_DROP = 0.25
"""A run has collapsed if it ends this share of the clean gain below the best it had,"""
COLLAPSE_BELOW_START = 0.1
"""or this share of it below its start."""
GAP_CLOSED = 0.9
"""A run has arrived if it has at least this share of the clean gain."""
STILL_RISING = 0.1
"""A run that has not is late, if the last quarter of its curve brings at least this share of the clean gain."""


class Outcome(StrEnum):
    """Class of a run under noise, compared with the same seed under clean rewards."""

    REACHED = "reached"
    """It ends with at least :data:`GAP_CLOSED` of the clean gain."""
    DELAY = "delay"
    """It ends with less, and was still rising: noise costs samples."""
    PLATEAU = "plateau"
    """It ends with less and has stopped rising: more samples would not help."""
    COLLAPSE = "collapse"
    """It ends well below its start, or below the best that it had: noise is learned."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Scores at ascending places, at least one; places are samples or seconds."""

    places: tuple[float, ...]
    scores: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.places or len(self.places) != len(self.scores):
            raise ValueError("a curve has a score at each of its places, and at least one")
        if any(b <= a for a, b in zip(self.places, self.places[1:], strict=False)):
            raise ValueError(f"places of a curve must ascend (got {self.places})")

    def at(self, place: float) -> float:
        """The score at a place, by straight lines; beyond the last evaluation that one's."""
        return float(np.interp(place, self.places, self.scores))

    def until(self, place: float) -> Curve:
        """The curve up to a place within it, which gets a point of its own."""
        kept = [(x, y) for x, y in zip(self.places, self.scores, strict=True) if x < place]
        places, scores = zip(*[*kept, (place, self.at(place))], strict=True)
        return Curve(places, scores)


def matched(curves: Sequence[Curve]) -> list[Curve]:
    """The curves up to the last place that all of them have reached."""
    last = min(curve.places[-1] for curve in curves)
    return [curve.until(last) for curve in curves]


def area(curve: Curve) -> float:
    """Mean height of the curve: its area by trapezoids (``scipy.integrate.trapezoid``) over its length."""
    length = curve.places[-1] - curve.places[0]
    if length == 0.0:
        return curve.scores[-1]
    return float(integrate.trapezoid(curve.scores, curve.places) / length)


def worst_drop(curve: Curve) -> float:
    """The most that the score has fallen from any earlier score, at least 0."""
    scores = np.asarray(curve.scores)
    return float(np.max(np.maximum.accumulate(scores) - scores))


def gap_closed(curve: Curve, clean: Curve) -> float:
    """Share of the clean run's gain that a run has at its end; NaN where clean rewards gain nothing."""
    gain = clean.scores[-1] - clean.scores[0]
    return (curve.scores[-1] - clean.scores[0]) / gain if gain > 0.0 else float("nan")


def classify(curve: Curve, clean: Curve) -> Outcome | None:
    """The class of a run, given the same seed's run under clean rewards; None where clean rewards gain nothing.

    The order is that of the questions: has it collapsed, has it arrived, was it still rising.
    """
    gain = clean.scores[-1] - clean.scores[0]
    if gain <= 0.0:
        return None
    first, last, best = curve.scores[0], curve.scores[-1], max(curve.scores)
    if best - last > COLLAPSE_DROP * gain or first - last > COLLAPSE_BELOW_START * gain:
        return Outcome.COLLAPSE
    if last - clean.scores[0] >= GAP_CLOSED * gain:
        return Outcome.REACHED
    begin, end = curve.places[0], curve.places[-1]
    recent = last - curve.at(end - (end - begin) / 4)
    return Outcome.DELAY if recent >= STILL_RISING * gain else Outcome.PLATEAU
