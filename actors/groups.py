"""The samples of one prompt on their way through the loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rollout.scoring.record import RewardRecord
from rollout.trajectory import Prompt, TrajectorySummary


@dataclass(slots=True)
class Sample:
    """One scored trajectory: small records, a reference to the bulk, and the factor of its losses."""

    summary: TrajectorySummary
    reward: RewardRecord
    trajectory: Any
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Dropped:
    """A trajectory that will not be trained on, and why."""

    trajectory_id: str
    reason: str


@dataclass(slots=True)
class Group:
    """One prompt and its samples, some of which may still be on their way."""

    index: int
    group_id: str
    prompt: Prompt
    num_samples: int
    admitted_version: int
    samples: list[Sample] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)

    @property
    def oldest_version(self) -> int:
        """Oldest weight version that sampled a token of a settled group."""
        return min((s.summary.policy_version_min for s in self.samples), default=self.admitted_version)

    @property
    def scored_version(self) -> int:
        """Weight version from which training may see all scores."""
        return max((s.summary.policy_version_max + s.reward.delay_updates for s in self.samples), default=0)
