"""What an update reports. No torch in here: the controller reads it."""

from __future__ import annotations

from dataclasses import dataclass

from learner.metrics import Metrics


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """What one update reports; the same on every rank.

    Attributes:
        metrics: merged over micro-batches and ranks.
        timings: seconds in the phases ``old``, ``estimate``, ``policy`` and ``critic``, of the slowest rank.
    """

    metrics: Metrics
    timings: dict[str, float]
