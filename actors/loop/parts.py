"""What a controller is put together from: who does the work, and what is written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from actors.groups import Group
from actors.ledger.ledger import Ledger
from actors.pools.learner_ranks import StepResult
from actors.pools.reward_pool import RewardPool
from actors.pools.rollout_pool import RolloutPool
from actors.pools.weight_sync import WeightSync
from actors.recording.disk_space import DiskSpace
from actors.recording.journal import Journal
from actors.recording.run_status import RunStatus
from actors.recording.tell import TellEvent
from actors.recording.trajectory_log import TrajectoryLog


class MetricSink(Protocol):
    """Takes the metrics of each step."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one step."""
        ...

    def close(self) -> None:
        """Flush and release."""
        ...


class Learner(Protocol):
    """All learner ranks as one."""

    @property
    def saving(self) -> bool:
        """Whether a checkpoint is being written."""
        ...

    @property
    def save_is_written(self) -> bool:
        """Whether that checkpoint needs no more waiting for."""
        ...

    async def update(self, groups: Sequence[Group], step: int, rates: tuple[float, float] | None = None) -> StepResult:
        """Train on the groups; ``rates``: the reward's estimated false positive and false negative rate."""
        ...

    async def begin_save(self, step: int, controller_state: dict[str, Any]) -> None:
        """Copy the state of all ranks; it is written while training goes on."""
        ...

    async def finish_save(self) -> str:
        """Wait for the checkpoint to be complete; returns its path."""
        ...


@dataclass(frozen=True, slots=True)
class Workers:
    """Who does the work."""

    pool: RolloutPool
    rewards: RewardPool
    learner: Learner
    sync: WeightSync


@dataclass(frozen=True, slots=True)
class Records:
    """What is written down, and where."""

    ledger: Ledger
    journal: Journal
    tell: TellEvent
    status: RunStatus
    sinks: Sequence[MetricSink]
    trajectory_log: TrajectoryLog
    disk: DiskSpace
