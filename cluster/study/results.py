"""The lines of cells.jsonl: what a study has measured, one cell a line. Everything in a report comes from them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from actors.recording.append_file import AppendFile
from actors.recording.sinks import read_metrics
from cluster.study.cells import PlannedCell
from cluster.study.config import Cell
from rollout.component import StrictModel
from rollout.component.mistakes import BadLine, UnknownName

FILE = "cells.jsonl"


class Point(StrictModel):
    """One evaluation of a cell.

    Attributes:
        step: updates done.
        samples: trajectories trained on.
        train_s: seconds since training began, without evaluations.
        values: metrics by key; None for one that was not finite.
    """

    step: int
    samples: int
    train_s: float
    values: dict[str, float | None]


class CellResult(StrictModel):
    """One line: a cell that was run to its end, or that failed.

    Attributes:
        fingerprint: of its configuration, see :class:`cluster.study.cells.PlannedCell`.
        error: why it failed; None if it did not.
        wall_s: seconds that it took, all in all.
        cpu_s: seconds of a core that it took, where it ran in one process; of the first cell of a process without the
            start of its engine.
        curve: evaluations in their order; of a cell that failed, those that it got to.
    """

    cell: Cell
    fingerprint: str
    error: str | None = None
    wall_s: float
    cpu_s: float | None = None
    curve: tuple[Point, ...] = Field(())

    def values(self, metric: str) -> list[float]:
        """A metric at every evaluation; NaN where it was not finite."""
        found = (point.values[metric] for point in self.curve)
        return [float("nan") if value is None else value for value in found]


class ResultFile:
    """cells.jsonl with one writer. A line that was not written to its end is removed when the file is opened.

    Args:
        folder: of the study.

    Raises:
        UserError: a line is no result, or two are of one cell.
    """

    def __init__(self, folder: Path) -> None:
        self.results = read_results(folder)
        self._path = folder / FILE
        self._write_whole()
        self._file = AppendFile(self._path)

    def add(self, result: CellResult) -> None:
        """Append a line; it is on the disk when this returns."""
        self._file.append(_line(result))
        self._sync()
        self.results[result.cell] = result

    def forget(self, cells: Sequence[Cell]) -> None:
        """Remove the lines of these cells."""
        self._file.close()
        for cell in cells:
            self.results.pop(cell, None)
        self._write_whole()
        self._file = AppendFile(self._path)

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def _write_whole(self) -> None:
        """Written aside and put in place: a kill in between loses no line."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        partial.write_bytes(b"".join(map(_line, self.results.values())))
        os.replace(partial, self._path)

    def _sync(self) -> None:
        with self._path.open("rb") as file:
            os.fsync(file.fileno())


def _line(result: CellResult) -> bytes:
    return json.dumps(result.model_dump(mode="json"), allow_nan=False).encode() + b"\n"


def read_results(folder: Path) -> dict[Cell, CellResult]:
    """The whole lines of a study's folder, by cell; none if there is no file. The file may be written meanwhile.

    Raises:
        UserError: a line is no result, or two are of one cell.
    """
    path = folder / FILE
    found: dict[Cell, CellResult] = {}
    for number, line in enumerate(_whole_lines(path), 1):
        try:
            result = CellResult.model_validate_json(line)
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            raise BadLine(f"{path}:{number}: is not the result of a cell: {reason}") from error
        if result.cell in found:
            raise BadLine(f"{path}:{number}: a second result of cell {result.cell.name}; keep one of the lines")
        found[result.cell] = result
    return found


def require_same_study(folder: Path, cells: Sequence[PlannedCell]) -> dict[Cell, CellResult]:
    """The results of a study's cells; lines of cells that it has no more are left out.

    Raises:
        UserError: a result is of a cell that the study now defines otherwise, or a line is no result.
    """
    results = read_results(folder)
    for one in cells:
        result = results.get(one.cell)
        if result is not None and result.fingerprint != one.fingerprint:
            raise BadLine(
                f"{folder / FILE}: the result of cell {one.cell.name} is of another configuration than the study has "
                "now; choose another output, or delete its line"
            )
    return {one.cell: results[one.cell] for one in cells if one.cell in results}


def _whole_lines(path: Path) -> Iterator[str]:
    if path.exists():
        text = path.read_text(encoding="utf-8")
        yield from text[: text.rfind("\n") + 1].splitlines()


def read_curve(folder: Path, planned: PlannedCell, metrics: Sequence[str]) -> tuple[Point, ...]:
    """The evaluations of a run.

    Args:
        folder: of the run.
        metrics: keys that are kept.

    Raises:
        UserError: an evaluation does not have one of them.
    """
    per_step = planned.config.training.trajectories_per_step
    points, train_s = [], 0.0
    for line in read_metrics(folder / "metrics.jsonl"):
        evaluated = "time/eval_s" in line
        if "time/step_s" in line:
            train_s += line["time/step_s"] - (line["time/eval_s"] if evaluated else 0.0)
        if evaluated:
            values = {metric: _value(line, metric) for metric in metrics}
            step = int(line["step"])
            points.append(Point(step=step, samples=step * per_step, train_s=round(train_s, 3), values=values))
    return tuple(points)


def _value(line: dict[str, float], metric: str) -> float | None:
    # Other metrics are those of the step; before the first one, and of a method without a critic, some do not exist.
    if metric.startswith("eval/") and metric not in line:
        known = ", ".join(sorted(key for key in line if key.startswith("eval/")))
        raise UnknownName(f"metrics: {metric!r} is not measured by an evaluation; there are {known}")
    value = line.get(metric, math.nan)
    return value if math.isfinite(value) else None  # JSON has no form for the others
