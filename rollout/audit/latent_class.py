"""Error rates of several judges of the same responses without any gold label (Dawid and Skene 1979).

Assumptions: every judge says 0 or 1 about the same hidden truth; given the truth their errors are independent; most
judges are better than a coin. With three or more judges the rates then follow from how often each pattern of verdicts
occurs. Where the errors are shared, because judges fall for the same trick, agreement on the trick counts as truth:
the estimate is then too kind, and nothing in the data says so. Trust gold labels more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rollout.audit.intervals import LEVEL, Estimate

Array = npt.NDArray[np.float64]
NUM_RESAMPLES = 200
MAX_SWEEPS = 2000
PRIOR = 0.5
"""Pseudo-count on each verdict of each class: keeps rates off 0 and 1, where the iteration would stick."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentRates:
    """What agreement between judges implies, with bootstrap intervals over responses.

    Attributes:
        prevalence: share of responses that are right.
        false_positive_rate, false_negative_rate, j: of each judge, in order.
    """

    prevalence: Estimate
    false_positive_rate: tuple[Estimate, ...]
    false_negative_rate: tuple[Estimate, ...]
    j: tuple[Estimate, ...]


def latent_rates(verdicts: Sequence[Sequence[float]], level: float = LEVEL) -> LatentRates:
    """Fit the two-class model to ``verdicts[i]``, what each judge says of response i (0 or 1).

    Raises:
        ValueError: fewer than three judges, a verdict that is neither 0 nor 1, or fewer than 20 responses.
    """
    judges = len(verdicts[0]) if verdicts else 0
    if judges < 3 or len(verdicts) < 20 or any(len(row) != judges for row in verdicts):
        raise ValueError("without gold labels it takes at least 3 judges of the same 20 or more responses")
    if any(value not in (0.0, 1.0) for row in verdicts for value in row):
        raise ValueError("verdicts must be 0 or 1")
    # The likelihood depends on how often each pattern occurs, so the fit runs over patterns, not responses.
    found = Counter(tuple(row) for row in verdicts)
    patterns, counts = np.array(list(found), dtype=float), np.array(list(found.values()), dtype=float)
    point = _fit(patterns, counts[None])[0]
    resampled = np.random.default_rng(0).multinomial(len(verdicts), counts / counts.sum(), size=NUM_RESAMPLES)
    spread = _fit(patterns, resampled.astype(float))
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(spread, [tail, 1.0 - tail], axis=0)
    estimates = [
        # The prior moves resamples off 0 and 1, and an interval has to hold its own estimate.
        Estimate(float(v), float(min(v, a)), float(max(v, b)), len(verdicts))
        for v, a, b in zip(point, low, high, strict=True)
    ]
    rates = [tuple(estimates[1 + k * judges : 1 + (k + 1) * judges]) for k in range(3)]
    return LatentRates(prevalence=estimates[0], false_positive_rate=rates[0], false_negative_rate=rates[1], j=rates[2])


def _fit(patterns: Array, counts: Array) -> Array:
    """Expectation-maximisation for each row of counts at once.

    Args:
        patterns: [pattern judge] verdicts.
        counts: [data pattern] how often each occurs.

    Returns:
        [data 1 + 3 judges]: prevalence, false positive rates, false negative rates, J.
    """
    posterior = np.clip(np.broadcast_to(patterns.mean(axis=1), counts.shape), 0.05, 0.95)  # votes to begin with
    says_yes = patterns
    for _ in range(MAX_SWEEPS):
        right, wrong = counts * posterior, counts * (1.0 - posterior)
        prevalence = (right.sum(1) + PRIOR) / (counts.sum(1) + 2 * PRIOR)
        sensitivity = (right @ says_yes + PRIOR) / (right.sum(1, keepdims=True) + 2 * PRIOR)
        fallout = (wrong @ says_yes + PRIOR) / (wrong.sum(1, keepdims=True) + 2 * PRIOR)
        for_right = np.log(prevalence)[:, None] + _log_likelihood(says_yes, sensitivity)
        for_wrong = np.log1p(-prevalence)[:, None] + _log_likelihood(says_yes, fallout)
        # Clipped at what exp can hold in float64.
        updated = 1.0 / (1.0 + np.exp(np.clip(for_wrong - for_right, -700, 700)))
        moved = float(np.abs(updated - posterior).max())
        posterior = updated
        if moved < 1e-7:
            break
    return _named_by_most_judges(prevalence, sensitivity, fallout)


def _log_likelihood(says_yes: Array, rate: Array) -> Array:
    """[data pattern] log-probability of each pattern where judge k says 1 with probability rate[:, k]."""
    return np.asarray(np.log(rate) @ says_yes.T + np.log1p(-rate) @ (1.0 - says_yes).T, dtype=np.float64)


def _named_by_most_judges(prevalence: Array, sensitivity: Array, fallout: Array) -> Array:
    """The two classes are alike but for their names: the one that judges on average say 1 to is "right"."""
    swapped = sensitivity.mean(1) < fallout.mean(1)
    prevalence = np.where(swapped, 1.0 - prevalence, prevalence)
    yes, no = np.where(swapped[:, None], fallout, sensitivity), np.where(swapped[:, None], sensitivity, fallout)
    return np.concatenate([prevalence[:, None], no, 1.0 - yes, yes - no], axis=1)
