"""From what an audit found to what to do about it, in plain language.

Presets and corrections are named as the configuration names them. Thresholds are our choice; docs/audit.md has them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from statistics import pstdev

from rollout.audit.error_rates import ErrorRates
from rollout.audit.intervals import Estimate
from rollout.audit.report import AuditReport, GoldFindings

NO_SIGNAL = 0.1
"""J up to this cannot teach: what is learned per response falls with its square, to one in a hundred."""
CLEAN_J = 0.9
CHANCE = 0.55
"""Share of pairs in order up to which a ranking is hardly better than a coin."""
WIDE = 0.2
"""Width of J's interval above which more labels are asked for."""
FEATURE_BIAS = 0.1
HEAVY_KURTOSIS = 3.0
"""Excess kurtosis of the errors above which their tails are heavy; 0 for a normal distribution."""
UNSCORED_SHARE = 0.05


def advised(report: AuditReport) -> AuditReport:
    """The report with its advice."""
    return replace(report, advice=tuple(_advice(report)))


def _advice(report: AuditReport) -> Iterator[str]:
    total = report.num_responses + sum(report.num_unscored.values())
    unscored = total - report.num_responses
    if unscored > UNSCORED_SHARE * total:
        told = ", ".join(f"{count} {outcome}" for outcome, count in report.num_unscored.items() if count)
        yield f"{unscored} of {total} responses have no score ({told}); mend that first: they are left out of training"
    if report.observed_std == 0.0:
        yield f"this reward cannot teach: every response scores {report.observed_mean:g}"
        return
    if report.gold is not None:
        yield from _from_gold(report, report.gold)
    else:
        yield from _without_gold(report)
    if report.phrase is not None:
        yield (
            f"read responses with {report.phrase.text!r}: it spread and is paid for; if it does not make them better, "
            "the reward is being hacked"
        )


def _from_gold(report: AuditReport, gold: GoldFindings) -> Iterator[str]:
    if gold.rates is not None:
        yield from _from_rates(gold.rates)
    elif gold.pairwise is not None:
        yield from _from_order(gold.pairwise, report, gold)
    else:
        yield "all gold labels are equal, so nothing can be said of right and wrong; label responses of both kinds"
    length = gold.error_correlation.get("length_tokens")
    if length is not None and _is_off_zero(length):
        more = "longer" if length.value > 0 else "shorter"
        yield (
            f"it favours {more} responses beyond what is right (rank correlation of error and length {length}); use a "
            "preset whose critic filters it, such as vrpo or dvpo, and watch rollout/response_tokens_mean"
        )
    for name, value in gold.error_correlation.items():
        if not name.startswith("length") and _is_off_zero(value):
            yield f"its errors go with {name} (rank correlation {value}); look at responses with a high and a low one"


def _from_rates(rates: ErrorRates) -> Iterator[str]:
    positive, negative, j = rates.false_positive_rate, rates.false_negative_rate, rates.j
    if j.high < 0.0:
        yield f"this reward teaches the opposite: J = {j} is below 0; check its sign and its reading of the answers"
    elif j.high <= NO_SIGNAL:
        yield f"this reward cannot teach: J = {j}, and 0 is a coin; no correction brings back what it does not hold"
    # An interval that reaches 0 decides nothing, whatever its middle says.
    elif j.low <= 0.0:
        yield f"whether this reward can teach is open: J = {j} may be 0; label more responses before training on it"
    elif j.value >= CLEAN_J:
        yield f"nearly clean (J = {j}): any preset will do, and no correction is needed"
    else:
        yield from _correction(positive, negative, j)
    if j.high - j.low > WIDE and j.high > NO_SIGNAL:
        # The width of an interval falls with the square root of the number of labels.
        needed = math.ceil((positive.count + negative.count) * ((j.high - j.low) / WIDE) ** 2)
        yield f"J is known to +-{(j.high - j.low) / 2:.2f} only; about {needed} labels would make it +-{WIDE / 2:.2f}"


def _correction(positive: Estimate, negative: Estimate, j: Estimate) -> Iterator[str]:
    rates = f"false_positive_rate: {positive.value:.3f}, false_negative_rate: {negative.value:.3f}"
    if negative.low > positive.high:
        yield (
            f"it mostly misses right answers (false negatives {negative}, false positives {positive}), which slows "
            "learning; the forward correction needs the false-negative rate only: algorithm: {preset: "
            f"forward-corrected, reward_correction: [{{type: forward_corrected, false_negative_rate: "
            f"{negative.value:.3f}}}]}}"
        )
        return
    if positive.low > negative.high:
        yield (
            f"it mostly passes wrong answers (false positives {positive}, false negatives {negative}): a policy can "
            "learn to collect them, so look at what passes before training, and re-check a share of it during training"
        )
    yield (
        f"give the rates to the correction: algorithm: {{preset: nc-dr-grpo, reward_correction: [{{type: "
        f"noise_corrected, {rates}}}]}}, or backward-ppo with a critic; plain grpo is not changed by it, because its "
        "advantages are normalised"
    )
    if j.value < 0.5:
        yield (
            f"with J = {j} a step teaches about {j.value**2:.0%} of what it would with a clean reward: prefer a critic "
            "that averages noise over many responses, such as dvpo or vrpo, and larger batches"
        )


def _from_order(pairwise: Estimate, report: AuditReport, gold: GoldFindings) -> Iterator[str]:
    if pairwise.high < 0.5:
        yield f"this reward teaches the opposite: {pairwise} of pairs are in the right order; check its sign"
        return
    if pairwise.high <= CHANCE:
        yield f"this reward cannot teach: {pairwise} of pairs are in the right order, and .5 is a coin"
        return
    if pairwise.low <= 0.5:
        yield f"whether this reward can teach is open: {pairwise} of pairs are in the right order; label more responses"
    else:
        yield f"it orders {pairwise} of pairs right"
    if _kurtosis(gold.errors) > HEAVY_KURTOSIS:
        yield (
            f"its errors have heavy tails (excess kurtosis {_kurtosis(gold.errors):.1f}): use the preset "
            "dvpo-winsorised, or reward_correction: [mad_clip] without a critic; squared errors suffer most"
        )
    elif pairwise.value < 0.8:
        yield "much of what it says is noise: prefer a critic that averages it, such as dvpo, vrpo or vc-ppo"
    in_prompt = gold.pairwise_in_prompt
    if in_prompt is not None and in_prompt.high < pairwise.low:
        yield (
            f"within a prompt it orders only {in_prompt} right: much of its score says which prompt it is; methods "
            "that compare the samples of a prompt, such as grpo and rloo, see only the lower figure"
        )


def _without_gold(report: AuditReport) -> Iterator[str]:
    yield (
        "without gold labels nothing can be said about faults that repeat, which are those a policy learns to exploit; "
        "label 300 responses (0 or 1) and audit again"
    )
    bound = report.retest.min_error_rate if report.retest is not None else None
    if bound is not None and bound.low > 0.0:
        yield f"at least {bound.low:.1%} of its verdicts are wrong, since it contradicts itself ({bound})"
        if bound.low >= 0.4:
            yield "this reward can hardly teach: it contradicts itself almost as a coin does"
    reliability = report.retest.reliability if report.retest is not None else None
    if reliability is not None and reliability.high < 0.2:
        yield f"this reward can hardly teach: only {reliability} of what varies in it repeats"
    length = report.feature_correlation.get("length_tokens")
    if length is not None and abs(length.value) > 0.3 and _is_off_zero(length):
        yield f"it goes with length (rank correlation {length}); find out whether longer responses are better"
    for name, value in zip(report.judges, report.latent.j if report.latent else (), strict=True):
        if value.high <= NO_SIGNAL:
            yield f"judge {name} adds nothing: J = {value} by agreement with the others"


def _is_off_zero(value: Estimate) -> bool:
    return abs(value.value) >= FEATURE_BIAS and not value.low <= 0.0 <= value.high


def _kurtosis(errors: tuple[float, ...]) -> float:
    """Excess kurtosis of centred values; 0 where they do not vary."""
    spread = pstdev(errors)
    return sum((error / spread) ** 4 for error in errors) / len(errors) - 3.0 if spread > 0.0 else 0.0
