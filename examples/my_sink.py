"""A sink in one file outside the project: one line of CSV a step, for a spreadsheet.

logging: {sinks: [{type: "my_sink:CsvSink", keys: [reward/observed_mean, policy/entropy]}]}
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from actors.recording.sinks import FurtherSink
from rollout.component import StrictModel


class CsvSink(FurtherSink):
    """Appends ``step`` and some metrics to ``metrics.csv`` in the run's folder."""

    class Config(StrictModel):
        """Options."""

        keys: tuple[str, ...] = Field(min_length=1, description="Metrics to write, see docs/metrics.md.")

    def open(self, folder: Path, last_valid_step: int | None) -> None:
        """Keep the rows of steps that stay; a resumed run takes the later ones again."""
        self.path = folder / "metrics.csv"
        rows = list(csv.reader(self.path.open()))[1:] if self.path.exists() else []
        kept = [row for row in rows if last_valid_step is None or int(row[0]) <= last_valid_step]
        with self.path.open("w", newline="") as file:
            csv.writer(file).writerows([["step", *self.config.keys], *kept])

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """One row; a metric that was not measured in this step is empty."""
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow([step, *(metrics.get(key, "") for key in self.config.keys)])
