"""Causes in the reward: what it pays for, what it misses, and how that changes."""

from __future__ import annotations

import math
from statistics import fmean

from cluster.report.diagnosis.base import Evidence, Finding, Rule, Unknown
from cluster.report.diagnosis.grading_rules import injected_noise
from cluster.report.diagnosis.signals import FELL, OBSERVED, held_out, lost, reward_scale, rose, split_thirds
from cluster.report.diagnosis.spreading import Spread, spreading_phrases
from cluster.report.run_record import RunRecord


class HackedPhrase(Rule):
    """A phrase that the reward pays for whatever the answer is."""

    cause, title = "hacked_phrase", "A phrase is paid for, not the answer"
    why = (
        "A phrase has to spread by .15 of the responses, and wrong answers with it have to score .3 more than wrong "
        "answers without it, by three standard errors. Where nobody knows which are wrong, held-out accuracy has to "
        "have fallen by .1 too. The watch over re-checked answers raises a false alarm in at most one run in a hundred."
    )
    consequences = frozenset({"reward_drift", "entropy_collapse", "lr_too_high", "false_negatives", "length_bias"})
    OVERPAID, SURE = 0.3, 3.0

    def examine(self, run: RunRecord) -> Finding | Unknown | None:
        flags = [event for event in run.events_of("trust") if event.get("trust") == "hacking"]
        before, now = split_thirds(run)
        phrase = next((p for p in spreading_phrases(before, now) if self._is_paid(p, run)), None)
        if phrase is None and not flags:
            if not run.trajectories and "trust/num_rechecked" not in run.metrics:
                return self.unknown("neither trajectories nor true scores were recorded")
            return None
        if phrase is None and lost(run) < FELL:
            return None  # a flag without a loss and without a phrase is left to the rules about drift and length
        evidence = [] if phrase is None else [Evidence(source="trajectories/", text=_told(phrase))]
        evidence += [Evidence.of_event(event) for event in flags[:2]]
        score = held_out(run)
        if score.number > 1:
            text = f"held-out accuracy {score.first:.2f} at the start, {score.best:.2f} at best, {score.last:.2f} now"
            evidence.append(Evidence(source=score.key, text=text))
        what = f"responses with {phrase.text!r}" if phrase is not None else "wrong answers of some kind"
        return self.found(
            f"The reward pays for {what}, and the policy has found it.",
            evidence,
            [
                f"read them: dvpo report {run.folder} (browser, sorted by surprise)",
                "mend the reward so that it does not pay for it, then train again from a checkpoint before it spread",
                "reward.gold with trust.on_hacking: stop ends the next such run early (docs/audit.md)",
            ],
            0.95 if phrase is not None else 0.8,
        )

    def _is_paid(self, phrase: Spread, run: RunRecord) -> bool:
        """Whether responses with it score more than others that are worth as much."""
        if phrase.overpaid / reward_scale(run) < self.OVERPAID or phrase.overpaid < self.SURE * phrase.error:
            return False
        return phrase.kind != "all" or held_out(run).fell >= FELL


def _told(phrase: Spread) -> str:
    whose = {"wrong": "wrong answers", "all": "responses", "not the reference": "responses other than the reference"}
    return (
        f"{phrase.text!r} is in {phrase.share_now:.0%} of late responses, {phrase.share_before:.0%} of early ones; "
        f"{whose[phrase.kind]} with it score {phrase.score_with:.2f}, without it {phrase.score_without:.2f}"
    )


class LengthBias(Rule):
    """The reward's errors go with the length of a response, and the policy follows."""

    cause, title = "length_bias", "The reward prefers long (or short) answers"
    why = (
        "An error that goes with length by a rank correlation of .1, surely, is what `dvpo audit` warns of too. Where "
        "no true score is known, length has to have changed by half while held-out accuracy did not follow the reward."
    )
    consequences = frozenset({"truncation", "reward_drift", "hacked_phrase"})
    CORRELATION, GROWTH = 0.1, 1.5

    def examine(self, run: RunRecord) -> Finding | Unknown | None:
        metrics, key = run.metrics, "trust/error_length_correlation"
        length = metrics.curve("rollout/response_tokens_mean")
        before, after = (fmean(length.early), fmean(length.late)) if len(length) else (math.nan, math.nan)
        low, high = metrics.late(f"{key}_low"), metrics.late(f"{key}_high")
        evidence = []
        if low >= self.CORRELATION or high <= -self.CORRELATION:
            text = f"score minus true score goes with length by {metrics.late(key):+.2f} [{low:+.2f}, {high:+.2f}]"
            evidence.append(Evidence(source=key, text=text))
        grown = max(after / before, before / after) if before > 0 and after > 0 else 1.0
        told = Evidence(source="rollout/response_tokens_mean", text=f"{before:.1f} tokens early, {after:.1f} late")
        if not evidence:
            if key in metrics:
                return None
            if not rose(metrics.curve(OBSERVED), FELL) or grown < self.GROWTH:
                return None if len(length) else self.unknown("no lengths were recorded")
            score = held_out(run)
            if score.number < 2 or score.gained > 0.0:
                return None
            text = f"the reward rose by {metrics.curve(OBSERVED).rise:.2f}, held-out accuracy by {score.gained:+.2f}"
            evidence.append(Evidence(source=score.key, text=text))
        if grown >= 1.1:
            evidence.append(told)
        return self.found(
            "The score depends on how long a response is, beyond what is right about it.",
            evidence,
            [
                f"see by how much: dvpo audit {run.folder / 'config.yaml'}",
                "mend the reward; a penalty on length hides the symptom",
            ],
            0.75 + 0.2 * (grown >= self.GROWTH),
        )


class UninformativeReward(Rule):
    """A reward that hardly depends on whether the answer is right."""

    cause, title = "uninformative_reward", "The reward says next to nothing"
    why = (
        "J = 1 - FPR - FNR at most .1, surely: one score then says as much as a hundredth of a true one (1 / J² times "
        "as many responses), and below 0 it teaches the opposite. The same limit as in `dvpo audit`."
    )
    consequences = frozenset({"lr_too_low", "critic_collapse"})
    LEAST_J = 0.1

    def examine(self, run: RunRecord) -> Finding | Unknown | None:
        high = run.metrics.last("trust/j_high")
        if not math.isfinite(high):
            return self.unknown("true scores are not known, so neither are error rates (reward.gold)")
        if high > self.LEAST_J:
            return None
        j, low = run.metrics.last("trust/j"), run.metrics.last("trust/j_low")
        text = f"J is {j:.2f} [{low:.2f}, {high:.2f}]: " + ("it is upside down" if high < 0.0 else "about a coin")
        return self.found(
            "Right and wrong answers score nearly alike.",
            [Evidence(source="trust/j", text=text), *injected_noise(run, "symmetric_flip", "asymmetric_flip")],
            [f"audit the reward before training on it: dvpo audit {run.folder / 'config.yaml'} --gold FILE"],
            0.85,
        )


class RewardDrift(Rule):
    """A reward that judges the same kind of answer differently than at the start."""

    cause, title = "reward_drift", "The reward's errors changed during the run"
    why = (
        "The watch over re-checked answers raises a false alarm in at most one run in a hundred. Without it, an error "
        "rate has to move by .15 and by three standard errors between the beginning and the end."
    )
    MOVED = 0.15

    def examine(self, run: RunRecord) -> Finding | Unknown | None:
        flags = [event for event in run.events_of("trust") if event.get("trust") == "drift"]
        evidence = [Evidence.of_event(event) for event in flags[:2]]
        rates = ("reward/false_positive_rate", "reward/false_negative_rate")
        for key in rates:
            curve = run.metrics.curve(key)
            if len(curve) and abs(curve.rise) >= self.MOVED and abs(curve.rise) > 3.0 * curve.rise_error:
                text = f"{fmean(curve.early):.2f} at the start, {fmean(curve.late):.2f} at the end"
                evidence.append(Evidence(source=key, text=text))
        if not evidence:
            recorded = "trust/num_rechecked" in run.metrics or any(key in run.metrics for key in rates)
            return None if recorded else self.unknown("true scores are not known, so errors cannot be followed")
        return self.found(
            "Answers of the same kind are judged differently now than at the start.",
            evidence,
            [
                "look for what changed behind the reward: a model, a prompt, a service's version, a rubric",
                f"score old and new responses again: dvpo audit {run.folder / 'config.yaml'}",
                "trust.on_drift: stop ends the next such run early (docs/audit.md)",
            ],
            0.7 + 0.1 * bool(flags),
        )
