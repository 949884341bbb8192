"""``mlflow``: MLflow, a store of files in the run's folder unless a server is named."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from actors.recording.trackers.base import TrackerSink

MAX_PARAM, MAX_BATCH = 500, 100
"""Letters of a parameter's value, and parameters of one call, that every store takes."""


class MlflowSink(TrackerSink):
    """MLflow: into ``mlruns/`` in the run's folder, or to a tracking server."""

    package = extra = "mlflow"

    class Config(TrackerSink.Config):
        """Options."""

        tracking_uri: str | None = Field(
            None, description="Store or server as MLflow names it, http://HOST:PORT; by default files in the folder."
        )

    config: MlflowSink.Config

    def begin(self, name: str, settings: dict[str, Any], folder: Path) -> None:
        """See :class:`TrackerSink`."""
        if self.config.tracking_uri is None:
            # MLflow 3 keeps the store of files for those who ask for it; the others need a data base or a server.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        # A client and not mlflow.start_run, whose current run is one for the whole process.
        self._client = MlflowClient(tracking_uri=self.config.tracking_uri or (folder / "mlruns").resolve().as_uri())
        experiment = self._client.get_experiment_by_name(self.config.project)
        number = experiment.experiment_id if experiment else self._client.create_experiment(self.config.project)
        self._run_id = self._client.create_run(number, run_name=name).info.run_id
        params = [Param(key, value[:MAX_PARAM]) for key, value in _flat("", settings)]
        for first in range(0, len(params), MAX_BATCH):
            self._client.log_batch(self._run_id, params=params[first : first + MAX_BATCH])

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """See :class:`TrackerSink`."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._client.log_batch(self._run_id, metrics=[Metric(key, value, now, step) for key, value in metrics.items()])

    def end(self) -> None:
        """See :class:`TrackerSink`."""
        self._client.set_terminated(self._run_id)


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every leaf of nested mappings by its dotted key."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else str(name), inner)
    elif prefix:
        yield prefix, str(value)
