"""Who is told a run's numbers while it goes on, beside the files; :mod:`actors.meters` hands them to Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from actors.groups import Group


class Meters(Protocol):
    """Takes what goes on in a run."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """The metrics of one step; see :class:`actors.recording.sinks.Sink`."""

    def batch(self, groups: Sequence[Group], version: int) -> None:
        """Trajectories that were trained on with the weights of ``version``."""

    def event(self, kind: str, level: str) -> None:
        """Something was told; see :class:`actors.recording.tell.TellEvent`."""

    def close(self) -> None:
        """The run is over."""


class NoMeters:
    """Where there is no Ray, nobody asks."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Nothing."""

    def batch(self, groups: Sequence[Group], version: int) -> None:
        """Nothing."""

    def event(self, kind: str, level: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
