"""Has a rate risen above what it was at first? A sequential test that bounds false alarms over a whole run."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

RECENT_STEPS = 10
BETS = np.array([0.05, 0.1, 0.2, 0.4, 0.8, 0.95])[:, None]
"""Shares of the greatest stake that never loses everything; wealth is the mean over them."""
MEANS = np.linspace(0.0, 1.0, 257) ** 2
"""Means that the start may have had, closest to each other near 0, where error rates lie."""
START_DECAY = 1.2
"""The bet that starts at test s has a weight in proportion to s**-1.2: a late change costs little more to find."""
START_SUM = 5.5916
"""Of s**-1.2 over all s, rounded up."""

Wealth = npt.NDArray[np.float64]


class RateWatch:
    """Watches the mean of values in [0, 1], such as false positives among wrong answers.

    The first steps are the baseline, whose true mean m is not known. For each m two wealths are kept. One has bet on
    the baseline's values x that their mean is below m: 1 - b (x - m) / (1 - m) for each. The other bets on every value
    since that their mean is above m + ``tolerance``: 1 - b + b x / (m + tolerance). If nothing has risen, neither grows
    on average for the true m, so their product is an e-process, and by Ville's inequality it reaches 1 / miss at any
    time with a probability of ``miss`` at most. The alarm is raised when the product has reached that for every m
    (betting: Waudby-Smith and Ramdas, arXiv 2010.09686). Both wealths are monotone in m, so an m between two of the
    grid has at least the first wealth of its lower and the second of its upper neighbour. The second is a weighted sum
    over bets that start at different steps, so that a late change is found too (Shin, Ramdas and Rinaldo, arXiv
    2203.03532).

    So if the conditional mean never exceeds the baseline's by more than ``tolerance``, an alarm is raised with
    probability at most ``miss``, over any number of steps.

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
        self._is_testing: bool = kept.get("is_testing", False)
        self._num_tested: int = kept.get("num_tested", 0)
        self._log_wealth: Wealth | None = np.array(kept["log_wealth"]) if kept.get("log_wealth") else None
        self._recent: deque[tuple[float, int]] = deque(map(tuple, kept.get("recent", ())), maxlen=RECENT_STEPS)
        self._log_baseline = _log_wealth_below(self._first) if self._is_testing else None

    @property
    def baseline(self) -> float | None:
        """Mean at the start, or None while that is not known yet."""
        return math.fsum(self._first) / len(self._first) if self._is_testing else None

    @property
    def limit(self) -> float | None:
        """What is no rise: the mean at the start and the tolerance; None during the baseline."""
        return None if self.baseline is None else self.baseline + self._tolerance

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
        if self._log_baseline is None:
            self._extend_baseline(values)
            return False
        # A new bet starts at every step with its share of the stake, so a change late in a run is found as well.
        self._num_tested += 1
        start = -START_DECAY * math.log(self._num_tested) - math.log(START_SUM)
        kept = start if self._log_wealth is None else np.logaddexp(self._log_wealth, start)
        self._log_wealth = kept + _log_gains_above(values, np.minimum(MEANS[1:] + self._tolerance, 1.0))
        product = self._log_baseline + _log_mean(self._log_wealth)
        return bool(product.min() >= math.log(1.0 / self._miss))

    def state(self) -> dict[str, Any]:
        """Everything :meth:`observe` depends on, for JSON."""
        return {
            "steps": self._steps,
            "first": list(self._first),
            "is_testing": self._is_testing,
            "num_tested": self._num_tested,
            "log_wealth": None if self._log_wealth is None else self._log_wealth.tolist(),
            "recent": [list(entry) for entry in self._recent],
        }

    def _extend_baseline(self, values: Sequence[float]) -> None:
        self._steps += 1
        self._first += values
        if self._steps >= self._baseline_steps and len(self._first) >= self._min_baseline:
            self._is_testing = True
            self._log_baseline = _log_wealth_below(self._first)


def _log_wealth_below(values: Sequence[float]) -> Wealth:
    """Log wealth of betting that the mean is below each of MEANS but the last; shape [256]."""
    means = MEANS[:-1]
    seen, counts = np.unique(np.asarray(values), return_counts=True)
    return _log_mean(_log_sum_of(counts, -(seen[:, None, None] - means) / (1.0 - means)))


def _log_gains_above(values: Sequence[float], means: Wealth) -> Wealth:
    """Log of what each bet on a mean above each of ``means`` gains by ``values``; shape [6, 256]."""
    seen, counts = np.unique(np.asarray(values), return_counts=True)
    return _log_sum_of(counts, seen[:, None, None] / means - 1.0)


def _log_sum_of(counts: npt.NDArray[np.int64], payoffs: Wealth) -> Wealth:
    """Sum over values of counts * log(1 + bet * payoff); payoffs of shape [values, 1, means]."""
    gains: Wealth = np.einsum("v,vbm->bm", counts, np.log1p(BETS * payoffs))
    return gains


def _log_mean(log_wealth: Wealth) -> Wealth:
    """Log of the mean wealth over bets."""
    mean: Wealth = np.logaddexp.reduce(log_wealth, axis=0) - math.log(len(BETS))
    return mean
