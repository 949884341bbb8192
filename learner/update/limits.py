"""When an update must not happen. No torch in here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UpdateLimits:
    """Limits that the learner checks before it changes anything. A number that is not finite is never let through.

    The gap of a sampled token is the absolute difference of its log-probability in the learner before the update and
    in the sampler, in nats.

    Attributes:
        gap_percentile: which percentile of the gaps is measured, in (0, 1]; None measures nothing.
        max_gap: largest such gap of tokens that were sampled with the current weights.
        max_stale_gap: the same for trajectories with tokens of older weights.
    """

    gap_percentile: float | None = None
    max_gap: float = math.inf
    max_stale_gap: float = math.inf


@dataclass(frozen=True, slots=True)
class TraceLimits:
    """How much an update records of single tokens, for people to look at. The default is nothing, and costs nothing.

    Attributes:
        num_trajectories: first ones of the batch that are recorded, as far as there is room.
        max_bytes: most bytes of one update's records as JSON, by estimate.
    """

    num_trajectories: int = 0
    max_bytes: int = 0

    @property
    def is_on(self) -> bool:
        """Whether anything is recorded."""
        return self.num_trajectories > 0 and self.max_bytes > 0

    def rows(self, numbers: Sequence[int]) -> list[int]:
        """Places among ``numbers``, which are those of a batch's trajectories, of the ones that are recorded."""
        return [row for row, number in enumerate(numbers) if self.is_on and number < self.num_trajectories]
