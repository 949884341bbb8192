"""Causes in grading: right answers that get nothing, and answers that get no score at all."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import ClassVar

from cluster.report.diagnosis.answers import form, says_reference
from cluster.report.diagnosis.base import Evidence, Finding, Rule, Unknown
from cluster.report.run_record import RunRecord
from cluster.report.samples import LoggedTrajectory


def injected_noise(run: RunRecord, *kinds: str) -> list[Evidence]:
    """That the configuration itself asks for such noise."""
    noise = run.settings.get("reward.noise", [])
    names = [str(item.get("type")) for item in noise if isinstance(item, dict)] if isinstance(noise, list) else []
    hits = [name for name in names if name in kinds]
    return (
        [Evidence(source="config.yaml", text=f"reward.noise injects {', '.join(hits)}: an experiment")] if hits else []
    )


class FalseNegatives(Rule):
    """Right answers that score 0, far more often than wrong ones score 1."""

    cause, title = "false_negatives", "The verifier misses right answers"
    why = (
        "A fifth of right answers missed, surely, and surely more than wrong ones passed: that is a verifier with a "
        "blind spot. Errors to both sides alike are noise of the whole reward and are not named here."
    )
    MISSED, EXCESS = 0.2, 0.1

    def examine(self, run: RunRecord) -> Finding | Unknown | None:
        metrics = run.metrics
        fnr, fpr = metrics.last("trust/false_negative_rate"), metrics.last("trust/false_positive_rate")
        low, high = metrics.last("trust/false_negative_rate_low"), metrics.last("trust/false_positive_rate_high")
        if math.isfinite(low) and math.isfinite(high):
            if low < self.MISSED or low - high < self.EXCESS:
                return None
            text = f"{fnr:.0%} of right answers score 0 (at least {low:.0%}); {fpr:.0%} of wrong ones score 1"
            evidence = [Evidence(source="trust/false_negative_rate", text=text)]
        else:
            said = [s for s in run.trajectories if says_reference(s) and s.observed is not None]
            if len(said) < 30:
                return self.unknown("true scores are known of none or too few answers (reward.gold, reward.gold_share)")
            missed = sum(s.observed == 0.0 for s in said) / len(said)
            wrong = [s for s in run.trajectories if says_reference(s) is False and s.observed is not None]
            passed = sum(s.observed != 0.0 for s in wrong) / len(wrong) if wrong else 0.0
            sure = 2.0 * math.sqrt(missed * (1.0 - missed) / len(said))
            if missed - sure < self.MISSED or missed - sure - passed < self.EXCESS:
                return None
            text = (
                f"of {len(said)} logged responses that end in their reference {missed:.0%} scored 0; of {len(wrong)} "
                f"others {passed:.0%} scored"
            )
            evidence = [Evidence(source="trajectories/", text=text)]
            fnr, fpr = missed, passed
        evidence += injected_noise(run, "asymmetric_flip", "majority_vote")
        return self.found(
            "Right answers score 0, and far more often than wrong ones score 1.",
            evidence,
            [
                f"read right answers that scored 0: dvpo report {run.folder} (browser, sorted by surprise)",
                "test the verifier on labelled lines: dvpo reward test CONFIG FILE",
                "until it is mended: a few true labels (reward.gold_labels) with reward_correction: [evidence]",
            ],
            0.5 + min(0.4, fnr - fpr),
        )


class UnreadableReferences(Rule):
    """A grader that gives 0 to answers that are the reference."""

    cause, title = "unreadable_references", "The grader cannot read the references"
    why = (
        "Half of the responses that end in their reference get nothing from the reward before noise, and references "
        "written alike get nothing nine times in ten: who reads '3' reads '7' too, and a grader that pays for one and "
        "not for the other misses right answers, whatever they look like. A reward that abstains nine times in ten "
        "reads nothing either; one that abstains less often leaves scores missing."
    )
    consequences = frozenset(
        {"too_hard", "lr_too_low", "false_negatives", "critic_collapse", "missing_scores", "uninformative_reward"}
    )
    SHARE, LEAST, OF_FORM, ABSTAINED = 0.5, 10, 0.9, 0.9

    def examine(self, run: RunRecord) -> Finding | Unknown | None:
        evidence, strength = [], 0.9
        said = [s for s in run.trajectories if says_reference(s) and s.parts]
        missed = self._never_paid(said)
        if len(said) >= self.LEAST and len(missed) >= self.SHARE * len(said):
            example = missed[0]
            text = (
                f"{len(missed)} of {len(said)} logged responses that end in their reference got 0, such as "
                f"{example.trajectory_id}: {example.response[-60:]!r} for {str(example.reference)[:60]!r}"
            )
            evidence.append(Evidence(source="trajectories/", text=text))
        told = [str(e["text"]) for e in run.events_of("data") if "cannot use" in str(e.get("text"))]
        evidence += [Evidence(source="events.jsonl", text=text) for text in told[:1]]
        metrics = run.metrics
        abstained, scored = metrics.total("reward/num_abstained"), metrics.total("reward/num_scored")
        if abstained >= self.ABSTAINED * max(1.0, abstained + scored):
            reason = next(iter(run.ledger.dropped), "") if run.ledger is not None else ""
            text = f"the reward abstained on {abstained:.0f} of {abstained + scored:.0f} responses"
            evidence.append(Evidence(source="reward/num_abstained", text=text + (f": {reason}" if reason else "")))
            strength = 0.85
        if not evidence:
            if not any(s.reference for s in run.trajectories):
                return self.unknown("no logged trajectory has a reference to compare with")
            return None
        return self.found(
            "Answers that are the reference score nothing, so the grader does not read what the references say.",
            evidence,
            [
                "see which rows: dvpo check CONFIG (it names references that the reward cannot use)",
                "try it: dvpo reward test CONFIG FILE with a few rows and their right answers",
                "change data.task.answer_pattern (or clean the references), or choose another grader (docs/rewards.md)",
            ],
            strength,
        )

    def _never_paid(self, said: list[LoggedTrajectory]) -> list[LoggedTrajectory]:
        """Responses that say references of a form for which there is next to never anything."""
        forms: dict[str, list[LoggedTrajectory]] = defaultdict(list)
        for sample in said:
            forms[form(str(sample.reference))].append(sample)
        found = []
        for samples in forms.values():
            unpaid = [sample for sample in samples if max(sample.parts.values()) <= 0.0]
            if len(unpaid) >= self.OF_FORM * len(samples):
                found += unpaid
        return found


class MissingScores(Rule):
    """Responses that should have a score and have none."""

    cause, title = "missing_scores", "Scores are missing"
    why = (
        "One response in twenty without a score: losses of so many tend to pick hard or long answers, which shifts "
        "training."
    )
    SHARE = 0.05
    KINDS: ClassVar = {
        "reward/num_missing": "withheld by noise",
        "reward/num_infrastructure_errors": "connections, time-outs, lost workers",
        "reward/num_invalid_scores": "no valid number",
        "reward/num_code_errors": "exceptions of the reward's code",
        "reward/num_abstained": "the reward abstained",
    }

    def examine(self, run: RunRecord) -> Finding | Unknown | None:
        metrics = run.metrics
        if "reward/num_scored" not in metrics:
            return self.unknown("outcomes of scoring were not recorded")
        lost_by_kind = {key: metrics.total(key) for key in self.KINDS}
        number, scored = sum(lost_by_kind.values()), metrics.total("reward/num_scored")
        if number < self.SHARE * max(1.0, number + scored):
            return None
        key = max(lost_by_kind, key=lambda name: lost_by_kind[name])
        text = f"{number:.0f} of {number + scored:.0f} responses have no score; most: {self.KINDS[key]}"
        evidence = [Evidence(source=key, text=text)]
        if run.ledger is not None:
            reasons = list(run.ledger.dropped.items())[:2]
            evidence += [
                Evidence(source="ledger.sqlite", text=f"dropped {count} times: {why}") for why, count in reasons
            ]
        return self.found(
            "A good part of the responses have no score and are left out.",
            evidence,
            [
                f"see which and why: dvpo ledger {run.folder}",
                "mend what fails; reward.timeout_s and reward.max_retries help with a slow service only",
            ],
            0.55 + min(0.35, number / (number + scored)),
        )
