"""Probability that a cell is right, given its scores, the error rates of the reward, a prior and gold labels.

Two kinds of error, one after the other. The *verdict* of the reward on a cell is drawn once and stays (persistent
errors); each call of the reward then reports the verdict, or its opposite (transient errors, independent calls). So,
with n calls and s ones,

    l1 = s log(1 - rho_minus) + (n - s) log rho_minus,   l0 = s log rho_plus + (n - s) log(1 - rho_plus)
    t1 = log((1 - pi_minus) e^l1 + pi_minus e^l0),       t0 = log(pi_plus e^l1 + (1 - pi_plus) e^l0)

and t1 - t0 is the evidence that the cell is right. Rates of exactly 0 and 1 are allowed. Where they make what was seen
impossible (a 1 and a 0 of a reward that never errs), the result is the limit in which all certainties are approached at
the same pace: the majority, and the prior at a tie.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rollout.audit.cells.counts import Array, CellCounts, Rate, require_probability

NEARLY = 2.0**-40
"""Distance from 0 and 1 at which contradictory certainties are compared; 1 - NEARLY is exact."""
CERTAIN = 1e6
"""Log-odds that stand for infinite ones: finite, so that differences exist, and 1 or 0 exactly as probabilities."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransientRates:
    """Errors that are drawn anew at each call.

    Attributes:
        rho_plus: P(score 1 | verdict 0).
        rho_minus: P(score 0 | verdict 1).
    """

    rho_plus: Rate
    rho_minus: Rate

    def __post_init__(self) -> None:
        """Raise ValueError outside [0, 1]."""
        require_probability(rho_plus=self.rho_plus, rho_minus=self.rho_minus)


@dataclass(frozen=True, slots=True, kw_only=True)
class PersistentRates:
    """Errors that are drawn once for a cell and stay.

    Attributes:
        pi_plus: P(verdict 1 | the cell is wrong).
        pi_minus: P(verdict 0 | the cell is right).
    """

    pi_plus: Rate = 0.0
    pi_minus: Rate = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError outside [0, 1]."""
        require_probability(pi_plus=self.pi_plus, pi_minus=self.pi_minus)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldNoise:
    """Errors of whoever gives gold labels.

    Attributes:
        false_right: P(gold 1 | the cell is wrong).
        false_wrong: P(gold 0 | the cell is right).
    """

    false_right: float = 0.0
    false_wrong: float = 0.0

    def __post_init__(self) -> None:
        """Raise ValueError outside [0, 1]."""
        require_probability(false_right=self.false_right, false_wrong=self.false_wrong)


NEVER_PERSISTENT = PersistentRates()
PERFECT_GOLD = GoldNoise()


def verdict_log_likelihoods(counts: CellCounts, transient: TransientRates) -> tuple[Array, Array]:
    """[cell] log-probabilities of the scores of each cell, in one order, where its verdict is 1 and where it is 0."""
    return _verdict_log_likelihoods(counts, transient.rho_plus, transient.rho_minus)


def truth_log_likelihoods(
    counts: CellCounts, transient: TransientRates, persistent: PersistentRates = NEVER_PERSISTENT
) -> tuple[Array, Array]:
    """[cell] log-probabilities of the scores of each cell where it is right (t1) and where it is wrong (t0)."""
    l1, l0 = verdict_log_likelihoods(counts, transient)
    return _through_verdict(l1, l0, persistent.pi_plus, persistent.pi_minus)


def log_evidence(
    counts: CellCounts, transient: TransientRates, persistent: PersistentRates = NEVER_PERSISTENT
) -> Array:
    """[cell] t1 - t0 in nats, finite: how far the scores speak for "right". 0 for a cell without calls."""
    t1, t0 = truth_log_likelihoods(counts, transient, persistent)
    both_impossible = np.isneginf(t1) & np.isneginf(t0)
    if both_impossible.any():
        nearly = [
            np.clip(rate, NEARLY, 1.0 - NEARLY)
            for rate in (transient.rho_plus, transient.rho_minus, persistent.pi_plus, persistent.pi_minus)
        ]
        n1, n0 = _through_verdict(*_verdict_log_likelihoods(counts, nearly[0], nearly[1]), nearly[2], nearly[3])
        t1, t0 = np.where(both_impossible, n1, t1), np.where(both_impossible, n0, t0)
    return np.clip(t1 - t0, -CERTAIN, CERTAIN)


def independent_posterior(
    counts: CellCounts,
    prior: Rate,
    transient: TransientRates,
    persistent: PersistentRates = NEVER_PERSISTENT,
    gold_noise: GoldNoise = PERFECT_GOLD,
) -> Array:
    """[cell] q, the probability of each cell being right: ``logit q = t1 - t0 + logit prior`` and its gold label.

    One call, rates 0, any prior strictly inside (0, 1): q is the score. A gold label without noise is q.

    Args:
        counts: what was seen of each cell.
        prior: probability of being right before any score, in [0, 1]: one, or [cell].
        transient, persistent, gold_noise: error rates.

    Raises:
        ValueError: a prior outside [0, 1].
    """
    require_probability(prior=prior)
    m = np.broadcast_to(np.asarray(prior, dtype=np.float64), counts.calls.shape)
    odds = log_evidence(counts, transient, persistent) + _logit(m) + _log_gold(counts, gold_noise)
    return _sigmoid(odds)


def _verdict_log_likelihoods(counts: CellCounts, rho_plus: Rate, rho_minus: Rate) -> tuple[Array, Array]:
    n, s = counts.calls, counts.ones
    return _times_log(s, 1.0 - rho_minus) + _times_log(n - s, rho_minus), _times_log(s, rho_plus) + _times_log(
        n - s, 1.0 - rho_plus
    )


def _through_verdict(l1: Array, l0: Array, pi_plus: Rate, pi_minus: Rate) -> tuple[Array, Array]:
    return (
        _log_mix(1.0 - pi_minus, l1, pi_minus, l0),
        _log_mix(pi_plus, l1, 1.0 - pi_plus, l0),
    )


def _log_mix(a: Rate, x: Array, b: Rate, y: Array) -> Array:
    """log(a e^x + b e^y)."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.logaddexp(np.log(a) + x, np.log(b) + y))


def _times_log(count: Array, probability: Rate) -> Array:
    """count * log(probability), where nothing happened no times with certainty: 0 * log 0 = 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(count > 0.0, count * np.log(probability), 0.0))


def _log(probability: Array) -> Array:
    with np.errstate(divide="ignore"):
        return np.asarray(np.maximum(np.log(probability), -CERTAIN), dtype=np.float64)


def _logit(probability: Array) -> Array:
    return _log(probability) - _log(1.0 - probability)


def _log_gold(counts: CellCounts, noise: GoldNoise) -> Array:
    """[cell] log-odds from the label; a noiseless one outweighs any scores and any prior."""
    plus, minus = np.float64(noise.false_right), np.float64(noise.false_wrong)
    with np.errstate(divide="ignore"):
        right, wrong = np.log(1.0 - minus) - np.log(plus), np.log(minus) - np.log(1.0 - plus)
    odds = np.where(counts.gold == 1.0, right, np.where(counts.gold == 0.0, wrong, 0.0))
    return np.asarray(np.clip(odds, -10.0 * CERTAIN, 10.0 * CERTAIN))


def _sigmoid(odds: Array) -> Array:
    small = np.exp(-np.abs(odds))
    return np.asarray(np.where(odds >= 0.0, 1.0, small) / (1.0 + small))
