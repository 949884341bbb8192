"""What a reward's verdicts are worth on labelled lines: confusion, rates with intervals, disagreements, slow calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from cluster.reward_test.lines import LabelledLine
from rollout.audit.intervals import Estimate, clopper_pearson

SHOWN_CHARACTERS = 70
"""Characters of a response, from its end, that a disagreement shows."""
NUM_SLOWEST = 5


@dataclass(frozen=True, slots=True)
class Result:
    """What the reward said of one line.

    Attributes:
        score: None if there is none.
        outcome: why there is none, ``error`` or ``abstained``; else empty.
        reason: one line on that.
        seconds: time of the call.
        read: what was taken for the response's answer, or None.
    """

    line: LabelledLine
    score: float | None
    outcome: str
    reason: str
    seconds: float
    read: str | None


@dataclass(frozen=True, slots=True)
class RewardTestReport:
    """The results of all lines.

    Attributes:
        path: the file.
        place: of the rewards in the configuration.
        names: of the rewards.
        threshold: least score that says "right".
    """

    path: str
    place: str
    names: tuple[str, ...]
    threshold: float
    results: tuple[Result, ...]

    def is_paid(self, result: Result) -> bool:
        """Whether the reward says that the line is right."""
        return result.score is not None and result.score >= self.threshold

    def count(self, is_right: bool, is_paid: bool) -> int:
        """Scored lines with this label and this verdict."""
        return sum(
            result.score is not None and result.line.is_right is is_right and self.is_paid(result) is is_paid
            for result in self.results
        )

    @property
    def disagreements(self) -> list[Result]:
        """Lines whose verdict is not their label, or that the reward failed on; an abstention pays nobody wrongly."""
        return [
            result
            for result in self.results
            if result.outcome == "error"
            or (result.score is not None and self.is_paid(result) is not result.line.is_right)
        ]

    @property
    def rates(self) -> dict[str, Estimate | None]:
        """Shares of wrong lines paid, right ones unpaid and agreement, with exact 95 % intervals; None of no line."""
        wrong, right = (self.count(label, True) + self.count(label, False) for label in (False, True))
        agreed = self.count(True, True) + self.count(False, False)
        return {
            "false_positive_rate": clopper_pearson(self.count(False, True), wrong) if wrong else None,
            "false_negative_rate": clopper_pearson(self.count(True, False), right) if right else None,
            "accuracy": clopper_pearson(agreed, wrong + right) if wrong + right else None,
        }

    @property
    def slowest(self) -> list[Result]:
        """The calls that took longest, longest first."""
        return sorted(self.results, key=lambda result: -result.seconds)[:NUM_SLOWEST]

    def lines(self, num_shown: int) -> Iterator[str]:
        """The report as text.

        Args:
            num_shown: most disagreements that are listed.
        """
        rewards = f"{self.place}: {', '.join(self.names)}"
        yield f"{len(self.results)} lines of {self.path}; {rewards}; paid from {self.threshold:g}"
        yield f"{'':14}{'paid':>8}{'not paid':>10}"
        for label, name in ((True, "label right"), (False, "label wrong")):
            yield f"{name:14}{self.count(label, True):>8}{self.count(label, False):>10}"
        for name, rate in self.rates.items():
            shown = "no line to tell" if rate is None else f"{rate} of {rate.count}"
            yield f"{name.replace('_', ' ')}: {shown}"
        unscored = Counter(result.outcome for result in self.results if result.outcome)
        if unscored:
            yield "not scored: " + ", ".join(f"{number} {outcome}" for outcome, number in sorted(unscored.items()))
        yield f"disagreements: {len(self.disagreements)}"
        for result in self.disagreements[:num_shown]:
            yield "  " + self._disagreement(result)
        if len(self.disagreements) > num_shown:
            yield f"  and {len(self.disagreements) - num_shown} more; --show {len(self.disagreements)} lists all"
        yield "slowest calls:"
        for result in self.slowest:
            yield f"  {result.seconds:.4f} s  {result.line.place}"

    def _disagreement(self, result: Result) -> str:
        label = "right" if result.line.is_right else "wrong"
        verdict = f"score {result.score:g}" if result.score is not None else f"{result.outcome}: {result.reason}"
        read = "no answer read" if result.read is None else f"read {_cut(result.read)}"
        against = f"reference {_cut(result.line.prompt.reference or '')}"
        return f"{result.line.place}: label {label}, {verdict}; {read}; {against}; response {_end(result)}"

    def to_json(self) -> dict[str, Any]:
        """The report as JSON, with every disagreement."""
        return {
            "file": self.path,
            "rewards": {"place": self.place, "types": list(self.names)},
            "threshold": self.threshold,
            "num_lines": len(self.results),
            "confusion": {
                "right_paid": self.count(True, True),
                "right_not_paid": self.count(True, False),
                "wrong_paid": self.count(False, True),
                "wrong_not_paid": self.count(False, False),
            },
            "not_scored": dict(Counter(result.outcome for result in self.results if result.outcome)),
            "rates": {name: None if rate is None else asdict(rate) for name, rate in self.rates.items()},
            "disagreements": [_as_json(result) for result in self.disagreements],
            "slowest": [{"place": result.line.place, "seconds": result.seconds} for result in self.slowest],
        }


def _cut(text: str) -> str:
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…")


def _end(result: Result) -> str:
    """The end of the response, where answers are."""
    text = result.line.trajectory.response_text
    return repr(text if len(text) <= SHOWN_CHARACTERS else "…" + text[1 - SHOWN_CHARACTERS :])


def _as_json(result: Result) -> dict[str, Any]:
    return {
        "place": result.line.place,
        "label": result.line.is_right,
        "score": result.score,
        "outcome": result.outcome or "scored",
        "reason": result.reason,
        "read": result.read,
        "reference": result.line.prompt.reference,
        "response": result.line.trajectory.response_text,
        "seconds": result.seconds,
    }
