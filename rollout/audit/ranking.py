"""Whether a reward puts responses in the right order, and what else it goes with."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from rollout.audit.intervals import LEVEL, Estimate, z_value

Vector = npt.NDArray[np.float64]


def pairwise_accuracy(
    observed: Sequence[float],
    gold: Sequence[float],
    groups: Sequence[Hashable] | None = None,
    level: float = LEVEL,
) -> Estimate | None:
    """P(the observed scores order two responses as gold does), over pairs whose gold differs; an observed tie is 1/2.

    With gold in {0, 1} and no groups it is the area under the ROC curve. With groups (prompt ids) only responses to the
    same prompt are compared, which is what a policy trained on groups depends on. The interval is normal on the logit,
    with the variance of the jackknife that leaves out one group, or one response where there are no groups. Where no
    pair, or every pair, is right the jackknife knows nothing; the exact bound for as many coin flips as there are
    groups (half as many as responses) takes its place.

    Returns:
        None if there is no pair to compare, or only one unit to leave out. ``count`` is the number of pairs.
    """
    scores, labels = np.asarray(observed, dtype=float), np.asarray(gold, dtype=float)
    if groups is None:
        right, number, left_out = _one_group(scores, labels)
    else:
        right, number, left_out = _by_group(scores, labels, groups)
    if number == 0 or len(left_out) < 2:
        return None
    value = right / number
    units = len(left_out) if groups is not None else max(1, len(left_out) // 2)
    if value in (0.0, 1.0):
        miss = ((1.0 - level) / 2.0) ** (1.0 / units)
        return Estimate(value, miss if value else 0.0, 1.0 if value else 1.0 - miss, int(number))
    spread = math.sqrt(float(((left_out - left_out.mean()) ** 2).sum()) * (len(left_out) - 1) / len(left_out))
    reach = z_value(level) * spread / (value * (1.0 - value))
    logit = math.log(value / (1.0 - value))
    return Estimate(value, _sigmoid(logit - reach), _sigmoid(logit + reach), int(number))


def _one_group(scores: Vector, labels: Vector) -> tuple[float, float, Vector]:
    """Right pairs, pairs, and the accuracy without each response in turn."""
    right, comparable = _pairs_of_each(scores, labels)
    total, number = right.sum() / 2.0, comparable.sum() / 2.0
    rest = number - comparable
    return float(total), float(number), (total - right)[rest > 0] / rest[rest > 0]


def _by_group(scores: Vector, labels: Vector, groups: Sequence[Hashable]) -> tuple[float, float, Vector]:
    """Right pairs, pairs, and the accuracy without each group in turn that has a pair."""
    members: dict[Hashable, list[int]] = {}
    for index, name in enumerate(groups):
        members.setdefault(name, []).append(index)
    sums = [_pairs_of_each(scores[index], labels[index]) for index in members.values()]
    right = np.array([float(a.sum()) / 2.0 for a, _ in sums])
    comparable = np.array([float(b.sum()) / 2.0 for _, b in sums])
    right, comparable = right[comparable > 0], comparable[comparable > 0]
    total, number = float(right.sum()), float(comparable.sum())
    if len(comparable) < 2:
        return total, number, np.zeros(0)
    return total, number, (total - right) / (number - comparable)


def _pairs_of_each(scores: Vector, labels: Vector) -> tuple[Vector, Vector]:
    """Of each response: pairs with another label, right ones (a tie is half a one) and all of them."""
    right, comparable = np.zeros(len(scores)), np.zeros(len(scores))
    for i in range(len(scores)):
        sign = np.sign(labels[i] - labels)
        agreement = sign * np.sign(scores[i] - scores)
        right[i] = ((1.0 + agreement) / 2.0)[sign != 0].sum()
        comparable[i] = (sign != 0).sum()
    return right, comparable


def spearman(first: Sequence[float], second: Sequence[float], level: float = LEVEL) -> Estimate | None:
    """Rank correlation, ties at their mean rank; None with fewer than 5 values or where one side never varies.

    The interval is Fisher's on atanh r with the variance (1 + r^2 / 2) / (n - 3) of Bonett and Wright (2000).
    """
    count = len(first)
    if count < 5 or len(set(first)) < 2 or len(set(second)) < 2:
        return None
    value = float(np.corrcoef(mid_ranks(first), mid_ranks(second))[0, 1])
    value = min(1.0, max(-1.0, value))
    # atanh has no value at 1.
    if abs(value) > 1.0 - 1e-12:
        return Estimate(value, value, value, count)
    reach = z_value(level) * math.sqrt((1.0 + value * value / 2.0) / (count - 3))
    return Estimate(value, math.tanh(math.atanh(value) - reach), math.tanh(math.atanh(value) + reach), count)


def mid_ranks(values: Sequence[float]) -> Vector:
    """Ranks from 1, equal values at the mean of theirs."""
    _, inverse, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2.0)[inverse], dtype=np.float64)


def _sigmoid(x: float) -> float:
    return 0.5 * (1.0 + math.tanh(0.5 * x))
