"""What a run writes down, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from actors.ledger.ledger import Ledger
from actors.recording.disk_space import DiskSpace
from actors.recording.journal import Journal
from actors.recording.meters import Meters, NoMeters
from actors.recording.run_status import RunStatus
from actors.recording.sinks import Sink
from actors.recording.tell import TellEvent
from actors.recording.trajectory_log import TrajectoryLog


@dataclass(frozen=True, slots=True)
class Records:
    """The files of a run and the journal that its display reads.

    Attributes:
        ledger: where each trajectory stands.
        journal: for the display.
        tell: writes an event down, for the display and in a file.
        status: what the run is doing now.
        sinks: take the metrics of each step.
        trajectory_log: keeps samples.
        disk: waits while it is full.
        meters: take the lengths and the staleness of each batch.
    """

    ledger: Ledger
    journal: Journal
    tell: TellEvent
    status: RunStatus
    sinks: Sequence[Sink]
    trajectory_log: TrajectoryLog
    disk: DiskSpace
    meters: Meters = field(default_factory=NoMeters)
