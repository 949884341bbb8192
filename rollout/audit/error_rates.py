"""False positive rate, false negative rate and J of a reward in {0, 1}, from gold labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rollout.audit.intervals import LEVEL, Estimate, clopper_pearson, difference
from rollout.audit.pairs import GoldPair, is_binary


@dataclass(frozen=True, slots=True)
class ErrorRates:
    """How a binary reward errs.

    Attributes:
        false_positive_rate: P(observed = 1 | gold = 0), with an exact (Clopper-Pearson) interval.
        false_negative_rate: P(observed = 0 | gold = 1), likewise. Both intervals hold their truth at once with the
            stated probability: they are read, and set in corrections, together. Each by itself is surer.
        j: TPR - FPR = 1 minus both, with Newcombe's interval for the difference of two shares.
    """

    false_positive_rate: Estimate
    false_negative_rate: Estimate
    j: Estimate


def error_rates(pairs: Sequence[GoldPair], level: float = LEVEL) -> ErrorRates | None:
    """Both rates and J, or None unless all scores are 0 or 1 and both gold labels occur.

    The rates come from disjoint responses, so two independent intervals of sqrt(level) hold at once with ``level``.
    They take responses for independent of each other. Where an error hits all samples of a prompt alike, label one
    response a prompt.
    """
    if not is_binary([value for pair in pairs for value in (pair.observed, pair.gold)]):
        return None
    on_wrong = [pair.observed for pair in pairs if pair.gold == 0.0]
    on_right = [pair.observed for pair in pairs if pair.gold == 1.0]
    # A rate without a case is unknown, not 0.
    if not on_wrong or not on_right:
        return None
    false_positives, true_positives = int(sum(on_wrong)), int(sum(on_right))
    level_of_each = math.sqrt(level)
    return ErrorRates(
        clopper_pearson(false_positives, len(on_wrong), level_of_each),
        clopper_pearson(len(on_right) - true_positives, len(on_right), level_of_each),
        difference((true_positives, len(on_right)), (false_positives, len(on_wrong)), level),
    )
