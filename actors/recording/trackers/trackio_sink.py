"""``trackio``: Trackio, in its local folder."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from actors.recording.trackers.base import TrackerSink


class TrackioSink(TrackerSink):
    """Trackio: into its own folder on the controller's machine (``TRACKIO_DIR``); ``trackio show`` opens it."""

    package = extra = "trackio"

    def begin(self, name: str, settings: dict[str, Any], folder: Path) -> None:
        """See :class:`TrackerSink`."""
        import trackio

        # Without a dashboard that would be opened, and without numbers of the machine.
        self._run = trackio.init(
            project=self.config.project,
            name=f"{name} {datetime.now(UTC):%Y-%m-%d %H:%M:%S.%f}",  # which no run had before
            group=name,
            config=settings,
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """See :class:`TrackerSink`."""
        self._run.log(dict(metrics), step=step)

    def end(self) -> None:
        """See :class:`TrackerSink`."""
        self._run.finish()
