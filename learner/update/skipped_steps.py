"""What was not done in one update, and why."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from learner.engine.engine import NonFiniteError, UpdateRefused
from learner.metrics import Last, Metrics
from learner.update.result import UpdateResult


@dataclass(slots=True)
class SkippedSteps:
    """Counts the optimiser steps of one update; the same on every rank.

    Attributes:
        num_taken: steps that were taken.
        num_skipped: steps that were not.
        num_nonfinite: those of them that were not because of a number that is not finite.
        notes: why, one for each refusal.
        metrics: what was measured on the way.
    """

    num_taken: int = 0
    num_skipped: int = 0
    num_nonfinite: int = 0
    notes: list[str] = field(default_factory=list)
    metrics: Metrics = field(default_factory=dict)

    def refuse(self, refusal: UpdateRefused, num_steps: int = 1) -> None:
        """Note a refusal that ``num_steps`` steps fall to."""
        self.num_skipped += num_steps
        self.num_nonfinite += num_steps if isinstance(refusal, NonFiniteError) else 0
        self.notes.append(str(refusal))
        self.metrics |= refusal.metrics

    def complete(self, result: UpdateResult) -> UpdateResult:
        """Add what was not done to what the update reports."""
        counts: Metrics = {
            "guard/num_skipped_steps": Last(float(self.num_skipped)),
            "guard/num_nonfinite_steps": Last(float(self.num_nonfinite)),
        }
        return replace(
            result,
            metrics=result.metrics | self.metrics | counts,
            skipped="" if self.num_taken else self.notes[0],
            notes=tuple(self.notes),
        )
