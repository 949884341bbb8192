"""``wandb``: Weights & Biases, offline unless asked otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from actors.recording.trackers.base import TrackerSink


class WandbSink(TrackerSink):
    """Weights & Biases: into ``wandb/`` in the run's folder; ``wandb sync`` sends an offline run later."""

    package = extra = "wandb"

    class Config(TrackerSink.Config):
        """Options."""

        mode: Literal["offline", "online"] = Field(
            "offline", description="'online' sends while the run goes on, and needs `wandb login` on the machine."
        )
        entity: str | None = Field(None, description="User or team; by default that of the login.")

    config: WandbSink.Config

    def begin(self, name: str, settings: dict[str, Any], folder: Path) -> None:
        """See :class:`TrackerSink`."""
        import wandb

        self._run = wandb.init(
            project=self.config.project,
            entity=self.config.entity,
            name=name,
            group=name,  # attempts at one run stand together
            config=settings,
            dir=str(folder),
            mode=self.config.mode,
            # Numbers only: nothing of the terminal, the source or the machine.
            settings=wandb.Settings(
                console="off", disable_git=True, disable_code=True, x_disable_stats=True, silent=True
            ),
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """See :class:`TrackerSink`."""
        self._run.log(dict(metrics), step=step)

    def end(self) -> None:
        """See :class:`TrackerSink`."""
        self._run.finish()
