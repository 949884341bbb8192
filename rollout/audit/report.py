"""Everything an audit found, as numbers, as JSON, and as lines for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, median
from typing import Any

from rollout.audit.calibration import Calibration, calibration
from rollout.audit.error_rates import ErrorRates, error_rates
from rollout.audit.intervals import Estimate
from rollout.audit.latent_class import LatentRates
from rollout.audit.pairs import GoldPair, is_binary
from rollout.audit.phrases import Phrase
from rollout.audit.ranking import pairwise_accuracy, spearman
from rollout.audit.retest import Retest

FEATURE_LEVEL = 0.99
"""Coverage of the intervals of feature correlations: several are looked at, so each has to be surer."""
OUTLIER_WIDTH, MAD_TO_STD = 3.0, 1.4826022185056018
MAX_PAIRWISE = 3000
"""Responses compared pair by pair; the time grows with their square."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldFindings:
    """What gold labels showed.

    Attributes:
        mean: mean gold label.
        rates: false positive and negative rate and J; None unless everything is 0 or 1 and both labels occur.
        pairwise: share of pairs of responses in the right order, all prompts together.
        pairwise_in_prompt: the same, only within prompts.
        correlation: rank correlation of observed score and gold label.
        error_correlation: rank correlation of observed minus gold with each feature.
        calibration: the reliability curve; None unless labels are 0 or 1.
        errors: observed minus gold of each response, less their mean.
    """

    mean: float
    rates: ErrorRates | None
    pairwise: Estimate | None
    pairwise_in_prompt: Estimate | None
    correlation: Estimate | None
    error_correlation: dict[str, Estimate]
    calibration: Calibration | None
    errors: tuple[float, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What an audit found.

    Attributes:
        num_responses: responses with a score.
        num_unscored: responses without one, by what became of them.
        observed_mean, observed_std: of the observed scores.
        is_binary: whether all of them are 0 or 1.
        feature_correlation: rank correlation of the observed score with each feature.
        gold: findings from gold labels, or None without any.
        retest: agreement of repeated scores, or None if responses were scored once.
        judges: names of the judges that ``latent`` is about, in order.
        latent: error rates implied by agreement between judges, or None.
        phrase: a phrase that spread and is paid for, or None.
        outlier_frac: share of the observed scores that are outliers, see :func:`outlier_share`.
        advice: what to do, in words; see :mod:`rollout.audit.advice`.
    """

    num_responses: int
    num_unscored: dict[str, int]
    observed_mean: float
    observed_std: float
    is_binary: bool
    feature_correlation: dict[str, Estimate]
    gold: GoldFindings | None = None
    retest: Retest | None = None
    judges: tuple[str, ...] = ()
    latent: LatentRates | None = None
    phrase: Phrase | None = None
    outlier_frac: float = 0.0
    advice: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All numbers but the single errors, for ``json.dumps``."""
        found = asdict(self)
        if found["gold"] is not None:
            del found["gold"]["errors"]
        return found

    def lines(self) -> list[str]:
        """All numbers in words, then the advice. An estimate is shown as ``value [low, high]``."""
        shown = [f"{self.num_responses} responses scored; mean {self.observed_mean:.3f}, std {self.observed_std:.3f}"]
        shown += [f"{count} {outcome}" for outcome, count in self.num_unscored.items() if count]
        if self.gold is not None:
            shown += ["", "against gold labels", *_gold_lines(self.gold)]
        if self.retest is not None:
            shown += ["", "scored again (sees only faults that do not repeat)", *_retest_lines(self.retest)]
        if self.latent is not None:
            shown += ["", "from agreement between judges (if their errors are independent)"]
            shown += _latent_lines(self.judges, self.latent)
        if self.feature_correlation:
            shown += ["", "rank correlation of the observed score with"]
            shown += [f"  {name:<22} {value}" for name, value in self.feature_correlation.items()]
        if self.phrase is not None:
            shown += ["", _phrase_line(self.phrase)]
        return [*shown, "", "advice", *(f"- {text}" for text in self.advice)]


def outlier_share(values: Sequence[float]) -> float:
    """Share of ``values`` more than three robust standard deviations (1.4826 * MAD) from their median.

    It is what the reward correction ``mad_clip`` would move with its default width if they were one batch: nothing
    where more than half of the values are equal, or where they are few different ones.
    """
    if len(set(values)) <= max(2, math.isqrt(len(values))):
        return 0.0
    centre = median(values)
    reach = OUTLIER_WIDTH * MAD_TO_STD * median(abs(value - centre) for value in values)
    return fmean(abs(value - centre) > reach for value in values) if reach > 0.0 else 0.0


def gold_findings(pairs: Sequence[GoldPair]) -> GoldFindings:
    """Compare observed scores with gold labels; ``pairs`` must not be empty."""
    observed, gold = [pair.observed for pair in pairs], [pair.gold for pair in pairs]
    compared = pairs[:MAX_PAIRWISE]
    scores, labels = [pair.observed for pair in compared], [pair.gold for pair in compared]
    errors = [pair.observed - pair.gold for pair in pairs]
    # A constant offset changes no order and no advantage, so errors are told around their mean.
    middle = fmean(errors)
    return GoldFindings(
        mean=fmean(gold),
        rates=error_rates(pairs),
        pairwise=pairwise_accuracy(scores, labels),
        pairwise_in_prompt=pairwise_accuracy(scores, labels, [pair.prompt_id for pair in compared]),
        correlation=spearman(observed, gold),
        error_correlation=feature_correlations(errors, [pair.features for pair in pairs]),
        calibration=calibration(observed, gold) if is_binary(gold) else None,
        errors=tuple(error - middle for error in errors),
    )


def feature_correlations(values: Sequence[float], features: Sequence[Mapping[str, float]]) -> dict[str, Estimate]:
    """Rank correlation of ``values`` with each feature that varies, with intervals of :data:`FEATURE_LEVEL`."""
    names = list(features[0]) if features else []
    found = {name: spearman(values, [row[name] for row in features], FEATURE_LEVEL) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _gold_lines(gold: GoldFindings) -> list[str]:
    rows: list[tuple[str, object]] = [("mean gold label", f"{gold.mean:.3f}")]
    if gold.rates is not None:
        rows += [
            ("false positive rate", gold.rates.false_positive_rate),
            ("false negative rate", gold.rates.false_negative_rate),
            ("J = TPR - FPR", gold.rates.j),
        ]
    rows += [("pairs in order", gold.pairwise), ("pairs within prompts", gold.pairwise_in_prompt)]
    rows += [("rank correlation", gold.correlation)]
    shown = [f"  {name:<22} {value}" for name, value in rows if value is not None]
    if gold.calibration is not None and gold.calibration.error is not None:
        error, floor = gold.calibration.error, gold.calibration.noise_floor
        shown.append(f"  {'calibration error':<22} {error:.3f} (chance alone: {floor:.3f})")
    return shown + [f"  {'error and ' + name:<32} {value}" for name, value in gold.error_correlation.items()]


def _retest_lines(found: Retest) -> list[str]:
    shown = [f"  {'scores that differ':<22} {found.disagreement}"]
    if found.min_error_rate is not None:
        shown.append(f"  {'misjudged at least':<22} {found.min_error_rate}")
    if found.reliability is not None:
        shown.append(f"  {'reliability':<22} {found.reliability}")
    return shown


def _latent_lines(judges: Sequence[str], latent: LatentRates) -> list[str]:
    shown = [f"  {'share right':<22} {latent.prevalence}"]
    for index, name in enumerate(judges):
        rates = latent.false_positive_rate[index], latent.false_negative_rate[index], latent.j[index]
        shown.append(f"  {name:<22} FPR {rates[0]}, FNR {rates[1]}, J {rates[2]}")
    return shown


def _phrase_line(phrase: Phrase) -> str:
    return (
        f"{phrase.text!r} is in {phrase.share_now:.0%} of late responses and was in {phrase.share_before:.0%} of early "
        f"ones; late responses score {phrase.score_with:.3f} with it and {phrase.score_without:.3f} without"
    )
