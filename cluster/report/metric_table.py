"""The numbers of a run by key: curves, and what they were like early and late."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

MIN_POINTS = 3
"""Points that 'early' and 'late' are taken over, at least; with fewer in a curve, all of it."""
EARLY_SHARE, LATE_SHARE = 0.1, 0.2
"""Share of a curve that is its beginning, and its end."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric over the run, where it is a number.

    Attributes:
        steps: updates done, ascending.
        values: as many.
    """

    steps: tuple[int, ...]
    values: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.values)

    @property
    def early(self) -> tuple[float, ...]:
        """The first tenth."""
        return self.values[: max(MIN_POINTS, math.ceil(EARLY_SHARE * len(self)))]

    @property
    def late(self) -> tuple[float, ...]:
        """The last fifth."""
        return self.values[-max(MIN_POINTS, math.ceil(LATE_SHARE * len(self))) :]

    def after(self, step: int) -> Curve:
        """The points of later steps than this."""
        kept = [(s, v) for s, v in zip(self.steps, self.values, strict=True) if s > step]
        return Curve(tuple(s for s, _ in kept), tuple(v for _, v in kept))

    @property
    def best(self) -> float:
        """The highest mean of neighbouring points, as many as there are late ones: a lucky batch alone is no best."""
        width = min(len(self), max(MIN_POINTS, math.ceil(LATE_SHARE * len(self))))
        windows = (self.values[start : start + width] for start in range(len(self) - width + 1))
        return max((fmean(window) for window in windows), default=math.nan)

    @property
    def rise(self) -> float:
        """Mean of the late points minus that of the early ones."""
        return fmean(self.late) - fmean(self.early) if self.values else math.nan

    @property
    def rise_error(self) -> float:
        """Standard error of :attr:`rise`, from how much neighbouring points differ."""
        if len(self) < 2 * MIN_POINTS:
            return math.inf
        # Differences of neighbours: a trend does not count as noise.
        steps = [b - a for a, b in zip(self.values, self.values[1:], strict=False)]
        noise = stdev(steps) / math.sqrt(2.0)
        return noise * math.sqrt(1.0 / len(self.early) + 1.0 / len(self.late))


class MetricTable:
    """The lines of a ``metrics.jsonl``.

    Args:
        lines: as :func:`actors.recording.sinks.read_metrics` gives them.
    """

    def __init__(self, lines: Sequence[Mapping[str, float]]) -> None:
        self.lines = list(lines)
        self._curves: dict[str, Curve] = {}

    def __contains__(self, key: str) -> bool:
        return bool(self.curve(key))

    @property
    def keys(self) -> list[str]:
        """Every metric, in the order of its first line."""
        found = dict.fromkeys(key for line in self.lines for key in line)
        return [key for key in found if key not in ("step", "time")]

    @property
    def steps(self) -> list[Mapping[str, float]]:
        """The lines of training steps; an evaluation before the first one has a line of its own."""
        return [line for line in self.lines if "time/step_s" in line]

    @property
    def last_step(self) -> int:
        """Updates that have a line; 0 before the first."""
        return max((int(line["step"]) for line in self.lines if "step" in line), default=0)

    def curve(self, key: str) -> Curve:
        """One metric; empty if it is not there or never a finite number."""
        if key not in self._curves:
            points = [
                (int(line["step"]), float(line[key]))
                for line in self.lines
                if "step" in line and math.isfinite(line.get(key, math.nan))
            ]
            self._curves[key] = Curve(tuple(s for s, _ in points), tuple(v for _, v in points))
        return self._curves[key]

    def early(self, key: str) -> float:
        """Median of the first tenth of a curve; NaN where there is none."""
        return median(self.curve(key).early) if key in self else math.nan

    def late(self, key: str) -> float:
        """Median of the last fifth of a curve; NaN where there is none."""
        return median(self.curve(key).late) if key in self else math.nan

    def last(self, key: str) -> float:
        """The newest value; NaN where there is none."""
        return self.curve(key).values[-1] if key in self else math.nan

    def total(self, key: str) -> float:
        """Sum over the run; 0 where there is none."""
        return sum(self.curve(key).values)

    def num_not_finite(self, key: str) -> int:
        """Lines that have the key without a finite number."""
        return sum(key in line and not math.isfinite(line[key]) for line in self.lines)

    @property
    def splits(self) -> list[str]:
        """Held-out splits, in the order of the task: the first is in-domain."""
        names = (key.removeprefix("eval/").removesuffix("/accuracy") for key in self.keys if is_accuracy(key))
        return list(names)

    def accuracy(self, split: str) -> Curve:
        """Held-out accuracy of a split."""
        return self.curve(f"eval/{split}/accuracy")


def is_accuracy(key: str) -> bool:
    """Whether a metric is the accuracy on a held-out split."""
    return key.startswith("eval/") and key.endswith("/accuracy") and key.count("/") == 2
