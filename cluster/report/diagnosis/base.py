"""What a rule is, and what it finds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from cluster.report.run_record import RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One fact that speaks for a cause.

    Attributes:
        source: a metric's key, or the file that says it.
        text: the fact, with its numbers.
    """

    source: str
    text: str

    @classmethod
    def of_event(cls, event: Mapping[str, Any]) -> Self:
        """What a line of ``events.jsonl`` says, with its step."""
        return cls(source="events.jsonl", text=f"step {event['step']}: {event['text']}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A cause that a rule has found.

    Attributes:
        cause: its name, as the rule has it.
        title: the cause in a few words.
        summary: what is wrong, in a sentence.
        evidence: the facts, the strongest first.
        why: why these thresholds.
        next_steps: what to do; commands as they can be typed.
        strength: how sure and how harmful, in [0, 1]; findings are ranked by it.
        follows_from: causes that are found too, and of which this one is a usual consequence.
    """

    cause: str
    title: str
    summary: str
    evidence: tuple[Evidence, ...]
    why: str
    next_steps: tuple[str, ...]
    strength: float
    follows_from: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A cause that could not be looked for, and why."""

    cause: str
    title: str
    reason: str


class Rule(ABC):
    """Looks for one cause in the records of a run."""

    cause: ClassVar[str]
    """Its name, for programs."""
    title: ClassVar[str]
    """Its name, for people."""
    why: ClassVar[str]
    """Where the thresholds come from."""
    consequences: ClassVar[frozenset[str]] = frozenset()
    """Causes that look found where this one is the reason; they are ranked below it."""

    @abstractmethod
    def examine(self, run: RunRecord) -> Finding | Unknown | None:
        """The cause if it is there, None if it is not, and why it cannot be told where nothing was recorded."""

    def found(self, summary: str, evidence: list[Evidence], next_steps: list[str], strength: float) -> Finding:
        """The finding of this rule."""
        return Finding(
            cause=self.cause,
            title=self.title,
            summary=summary,
            evidence=tuple(evidence),
            why=self.why,
            next_steps=tuple(next_steps),
            strength=min(1.0, max(0.0, strength)),
        )

    def unknown(self, reason: str) -> Unknown:
        """That it cannot be told."""
        return Unknown(cause=self.cause, title=self.title, reason=reason)
