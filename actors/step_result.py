"""What the learner made of a batch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepResult:
    """Result of one update, over all ranks.

    Attributes:
        metrics: of the update.
        skipped: why nothing was changed; empty if the batch was trained on.
        notes: where and why single optimiser steps were not taken.
    """

    metrics: dict[str, float]
    skipped: str = ""
    notes: tuple[str, ...] = ()
