"""Has a rate risen above what it was at first? A sequential test that bounds false alarms over a whole run."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from rollout.audit.intervals import BETS, bounded_mean_high

RECENT_STEPS = 10


class RateWatch:
    """Watches the mean of values in [0, 1], such as false positives among wrong answers.

    The first steps are the baseline. Its upper confidence bound plus ``tolerance`` is the limit m. From then on wealth
    is bet on a mean above m: every value x multiplies a bet's wealth by 1 - b + b x / m, which no mean up to m lets
    grow on average. A bet that starts at step s has the weight 1 / (s (s + 1)), so that a late change is found too;
    the weighted sum over starts and the mean over bets together form an e-process (Shin, Ramdas and Rinaldo, arXiv
    2203.03532), and Ville's inequality bounds the probability that it ever reaches 1 / miss.

    So if the conditional mean never exceeds the baseline's mean by more than ``tolerance``, an alarm is raised with
    probability at most ``miss``, over any number of steps: half of it for the baseline's bound, half for the test.

    Args:
        miss: probability of a false alarm over the whole run.
        tolerance: a rise up to this is no alarm.
        baseline_steps: steps with values that make the baseline.
        min_baseline: values the baseline needs at least; it goes on until it has them.
        state: what :meth:`state` gave, to go on exactly from there.
    """

    def __init__(
        self,
        miss: float,
        tolerance: float,
        baseline_steps: int,
        min_baseline: int,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self._miss, self._tolerance = miss, tolerance
        self._baseline_steps, self._min_baseline = baseline_steps, min_baseline
        kept = state or {}
        self._steps: int = kept.get("steps", 0)
        self._first: list[float] = list(kept.get("first", ()))
        self._baseline: float | None = kept.get("baseline")
        self._limit: float | None = kept.get("limit")
        self._num_tested: int = kept.get("num_tested", 0)
        self._log_wealth: list[float | None] = list(kept.get("log_wealth", [None] * len(BETS)))
        self._recent: deque[tuple[float, int]] = deque(map(tuple, kept.get("recent", ())), maxlen=RECENT_STEPS)

    @property
    def baseline(self) -> float | None:
        """Mean at the start, or None while that is not known yet."""
        return self._baseline

    @property
    def limit(self) -> float | None:
        """The mean that the test holds recent values against; None during the baseline."""
        return self._limit

    @property
    def recent(self) -> float | None:
        """Mean over the last steps that had values."""
        number = sum(count for _, count in self._recent)
        return sum(total for total, _ in self._recent) / number if number else None

    @property
    def newest(self) -> float | None:
        """Mean over the last step that had values."""
        return self._recent[-1][0] / self._recent[-1][1] if self._recent else None

    def observe(self, values: Sequence[float]) -> bool:
        """Take the values of one step, each in [0, 1]; returns whether the rise is proven by now."""
        if not values:
            return False
        self._recent.append((math.fsum(values), len(values)))
        if self._limit is None:
            self._extend_baseline(values)
            return False
        if self._limit >= 1.0:
            return False  # nothing lies above: not testable
        self._num_tested += 1
        start = -math.log(self._num_tested * (self._num_tested + 1))
        for index, bet in enumerate(BETS):
            gain = math.fsum(math.log1p(bet * (value / self._limit - 1.0)) for value in values)
            self._log_wealth[index] = gain + _log_sum(self._log_wealth[index], start)
        return self._evidence() >= math.log(2.0 / self._miss)

    def state(self) -> dict[str, Any]:
        """Everything :meth:`observe` depends on, for JSON."""
        return {
            "steps": self._steps,
            "first": list(self._first),
            "baseline": self._baseline,
            "limit": self._limit,
            "num_tested": self._num_tested,
            "log_wealth": list(self._log_wealth),
            "recent": [list(entry) for entry in self._recent],
        }

    def _extend_baseline(self, values: Sequence[float]) -> None:
        self._steps += 1
        self._first += values
        if self._steps >= self._baseline_steps and len(self._first) >= self._min_baseline:
            self._baseline = math.fsum(self._first) / len(self._first)
            self._limit = min(1.0, bounded_mean_high(self._first, self._miss / 2.0) + self._tolerance)
            self._first = []  # not needed any more

    def _evidence(self) -> float:
        """Log of the mean wealth over bets."""
        known = [value for value in self._log_wealth if value is not None]
        most = max(known)
        return most + math.log(sum(math.exp(value - most) for value in known) / len(BETS))


def _log_sum(first: float | None, second: float) -> float:
    """log(exp(first) + exp(second)), None standing for log 0."""
    if first is None:
        return second
    high, low = max(first, second), min(first, second)
    return high + math.log1p(math.exp(low - high))
