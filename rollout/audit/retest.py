"""What scoring the same responses again tells without any gold label: a lower bound on the noise, never an upper one.

Assumption: given the response, repeated scores are independent. Then two scores of a response that is misjudged with
probability e differ with probability 2 e (1 - e), and by Jensen's inequality the mean misjudgement is at least
(1 - sqrt(1 - 2 d)) / 2 for a mean disagreement d, with equality where all responses have the same e <= 1/2. Faults that
repeat (e = 0 or 1: a phrase that always passes, a verifier that rejects a notation) do not disagree with themselves and
are invisible here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rollout.audit.intervals import LEVEL, Estimate, wilson
from rollout.audit.pairs import is_binary

NUM_RESAMPLES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Retest:
    """Agreement of a reward with itself.

    Attributes:
        disagreement: P(two scores of one response differ); ``count`` is the number of responses. Wilson's interval,
            which is wide enough for means of several comparisons as well.
        min_error_rate: for scores in {0, 1}, what the share of misjudged responses is at least; ``low`` is the bound
            that also allows for chance. None for other scores.
        reliability: share of the scores' variance that is between responses (intraclass correlation of one score); its
            root is the most that scores can correlate with any truth. Bootstrap interval over responses. None where
            all scores are equal.
        noise_std: standard deviation of repeated scores of one response, in score units.
    """

    disagreement: Estimate
    min_error_rate: Estimate | None
    reliability: Estimate | None
    noise_std: float


def retest(scores: Sequence[Sequence[float]], level: float = LEVEL) -> Retest:
    """Compare repeated scores: ``scores[i]`` are those of response i, equally many (2 or more) for each.

    Raises:
        ValueError: no response, fewer than two scores of one, or not as many for each.
    """
    if not scores or len({len(row) for row in scores}) != 1 or len(scores[0]) < 2:
        raise ValueError("a retest needs at least one response, and the same number of scores, 2 or more, for each")
    table = np.asarray(scores, dtype=float)
    repeats = table.shape[1]
    # Ordered pairs of repetitions, without those of a repetition with itself.
    equal = (table[:, :, None] == table[:, None, :]).sum(axis=(1, 2)) - repeats
    differing = 1.0 - equal / (repeats * (repeats - 1))
    disagreement = wilson(float(differing.sum()), len(table), level)
    bound = None
    if is_binary(table.ravel().tolist()):
        value, low, high = map(least_error_rate, (disagreement.value, disagreement.low, disagreement.high))
        bound = Estimate(value, low, high, len(table))
    noise = math.sqrt(float(table.var(axis=1, ddof=1).mean()))
    return Retest(
        disagreement=disagreement, min_error_rate=bound, reliability=_reliability(table, level), noise_std=noise
    )


def least_error_rate(disagreement: float) -> float:
    """The least share of misjudged responses that explains a disagreement rate; 1/2 from a rate of 1/2 on."""
    return (1.0 - math.sqrt(max(0.0, 1.0 - 2.0 * disagreement))) / 2.0


def _reliability(table: npt.NDArray[np.float64], level: float) -> Estimate | None:
    value = float(_intraclass(table.mean(axis=1)[None], table.var(axis=1, ddof=1)[None], table.shape[1])[0])
    if math.isnan(value):
        return None
    # A fixed seed: the same responses give the same report.
    chosen = np.random.default_rng(0).integers(len(table), size=(NUM_RESAMPLES, len(table)))
    values = _intraclass(table.mean(axis=1)[chosen], table.var(axis=1, ddof=1)[chosen], table.shape[1])
    tail = (1.0 - level) / 2.0
    low, high = np.nanquantile(values, [tail, 1.0 - tail])
    return Estimate(value, float(low), float(high), len(table))


def _intraclass(
    means: npt.NDArray[np.float64], within: npt.NDArray[np.float64], repeats: int
) -> npt.NDArray[np.float64]:
    """ICC(1) of each row of [tables, responses] means and variances; NaN where nothing varies."""
    noise = within.mean(axis=1)
    between = means.var(axis=1, ddof=1) if means.shape[1] > 1 else np.zeros(len(means))
    signal = np.maximum(0.0, between - noise / repeats)
    total = signal + noise
    return np.divide(signal, total, out=np.full(len(means), np.nan), where=total > 0)
