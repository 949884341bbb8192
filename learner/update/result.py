"""What an update reports. No torch in here: the controller reads it."""

from __future__ import annotations

from dataclasses import dataclass

from learner.metrics import Metrics


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """What one update reports; the same on every rank.

    Attributes:
        metrics: merged over micro-batches and ranks.
        timings: seconds in the phases ``drift``, ``old``, ``estimate``, ``policy`` and ``critic``, of the slowest rank.
        skipped: why nothing at all was changed, neither weights nor optimisers nor the algorithm's scales; empty if at
            least one optimiser step was taken.
        notes: for each optimiser step that was not taken, or for all of them at once, where and why.
    """

    metrics: Metrics
    timings: dict[str, float]
    skipped: str = ""
    notes: tuple[str, ...] = ()
