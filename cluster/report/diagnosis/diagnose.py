"""Every rule over a run, and the order of what they find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cluster.report.diagnosis.base import Finding, Rule, Unknown
from cluster.report.diagnosis.critic_rules import CriticCollapse
from cluster.report.diagnosis.data_rules import BrokenTemplate, LeakingEvaluation, PromptsRepeated, TooEasy, TooHard
from cluster.report.diagnosis.delivery_rules import StalenessTooHigh, StaleWeights
from cluster.report.diagnosis.grading_rules import FalseNegatives, MissingScores, UnreadableReferences
from cluster.report.diagnosis.policy_rules import EntropyCollapse, LearningRateTooHigh, LearningRateTooLow, Truncation
from cluster.report.diagnosis.reward_rules import HackedPhrase, LengthBias, RewardDrift, UninformativeReward
from cluster.report.run_record import RunRecord

RULES: tuple[Rule, ...] = (
    BrokenTemplate(),
    UnreadableReferences(),
    StaleWeights(),
    HackedPhrase(),
    LengthBias(),
    FalseNegatives(),
    UninformativeReward(),
    RewardDrift(),
    MissingScores(),
    LearningRateTooHigh(),
    LearningRateTooLow(),
    CriticCollapse(),
    EntropyCollapse(),
    Truncation(),
    TooEasy(),
    TooHard(),
    LeakingEvaluation(),
    StalenessTooHigh(),
    PromptsRepeated(),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What looks wrong in a run.

    Attributes:
        findings: the likeliest first cause first; those that follow from another one come after it.
        unknown: causes that could not be looked for.
        num_rules: causes that were looked for, or tried to.
    """

    findings: tuple[Finding, ...]
    unknown: tuple[Unknown, ...]
    num_rules: int


def diagnose(run: RunRecord, rules: Sequence[Rule] = RULES) -> Diagnosis:
    """Look for every cause.

    A finding that is a usual consequence of another one is ranked below it, unless each is one of the other: then the
    stronger goes first.
    """
    answers = [(rule, rule.examine(run)) for rule in rules]
    found = {rule.cause: (rule, answer) for rule, answer in answers if isinstance(answer, Finding)}
    strength = {cause: finding.strength for cause, (_, finding) in found.items()}
    ranked = []
    for cause, (_, finding) in found.items():
        reasons = [
            other
            for other, (rule, _) in found.items()
            if cause in rule.consequences
            and not (other in found[cause][0].consequences and (strength[other], cause) < (strength[cause], other))
        ]
        ranked.append(replace(finding, follows_from=tuple(reasons)))
    ranked.sort(key=lambda finding: (bool(finding.follows_from), -finding.strength, finding.cause))
    return Diagnosis(
        findings=tuple(ranked),
        unknown=tuple(answer for _, answer in answers if isinstance(answer, Unknown)),
        num_rules=len(rules),
    )
