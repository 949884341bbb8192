"""What a run shows while it goes on: a live display on a terminal, one plain line a step anywhere else.

The display lives in the driver. The controller, a Ray actor, reports plain numbers; the driver turns them into
:class:`StepReport` and calls a :class:`Progress`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from actors.recording.safe_text import safe
from cluster.display.report import ESTIMATING, TIME_LEFT, Row, StepReport, format_duration, format_table


@dataclass(frozen=True, slots=True)
class RunSummary:
    """How a run ended.

    Attributes:
        rows: the table shown at the end.
        stopped_by: number of the signal that ended the run early, after a checkpoint; None if it ran to its end.
    """

    rows: Sequence[Row] = ()
    stopped_by: int | None = None

    @property
    def exit_status(self) -> int:
        """0, or 128 plus the signal as shells count: 130 for Ctrl-C, 143 for SIGTERM."""
        return 0 if self.stopped_by is None else 128 + self.stopped_by

    @property
    def signal_name(self) -> str:
        """``SIGINT``, ``SIGTERM`` or an empty string."""
        return "" if self.stopped_by is None else signal.Signals(self.stopped_by).name


class Progress(Protocol):
    """Shows how a run goes on."""

    def start(self) -> None:
        """Begin the display."""
        ...

    def rollouts(self, done: int, total: int) -> None:
        """Trajectories of the coming batch that are ready, of so many."""
        ...

    def step(self, report: StepReport) -> None:
        """A step is over."""
        ...

    def event(self, text: str) -> None:
        """Something worth a line: a checkpoint, an evaluation, a phase of the start."""
        ...

    def details(self, rows: Sequence[Row], is_new: bool) -> None:
        """More of what goes on now, below the numbers of the step; ``is_new``: it is about a step just told."""
        ...

    def finish(self, summary_rows: Sequence[Row]) -> None:
        """End the display and show the closing table. Also called, with no rows, when the run fails."""
        ...


class SilentProgress:
    """Shows nothing."""

    def start(self) -> None:
        """Nothing."""

    def rollouts(self, done: int, total: int) -> None:
        """Nothing."""

    def step(self, report: StepReport) -> None:
        """Nothing."""

    def event(self, text: str) -> None:
        """Nothing."""

    def details(self, rows: Sequence[Row], is_new: bool) -> None:
        """Nothing."""

    def finish(self, summary_rows: Sequence[Row]) -> None:
        """Nothing."""


class PlainProgress:
    """One line for each step and event, written at once; made for pipes, files and the logs of Ray jobs.

    A reader that goes away (``dvpo train ... | head``) does not disturb the run.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._reader_is_gone = False
        self._started = time.monotonic()

    def start(self) -> None:
        """Nothing: there is no display to begin."""

    def rollouts(self, done: int, total: int) -> None:
        """Nothing: one line a step is enough for a log."""

    def step(self, report: StepReport) -> None:
        """Print the report."""
        self._print(report.line())

    def event(self, text: str) -> None:
        """Print the text with the time since the start."""
        self._print(f"[{format_duration(time.monotonic() - self._started)}] {text}")

    def details(self, rows: Sequence[Row], is_new: bool) -> None:
        """Print them below the line of a step."""
        for line in format_table(rows) if is_new else ():
            self._print(f"  {line}")

    def finish(self, summary_rows: Sequence[Row]) -> None:
        """Print the closing table."""
        for line in format_table(summary_rows):
            self._print(line)

    def _print(self, text: str) -> None:
        if self._reader_is_gone:
            return
        try:
            print(safe(text), file=self._stream, flush=True)
        except (BrokenPipeError, ValueError):  # ValueError: the stream was closed
            self._reader_is_gone = True


class RichProgress:
    """A live display: bars of steps and rollouts over a table of the newest numbers; events scroll by above it."""

    def __init__(self, stream: TextIO | None = None, with_rollouts: bool = True) -> None:
        self._console = Console(file=stream, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Bars(*columns, console=self._console)
        self._steps = self._bars.add_task("steps", total=None)
        self._rollouts = self._bars.add_task("rollouts", total=None, visible=with_rollouts)
        self._rows: list[Row] = [(TIME_LEFT, ESTIMATING)]
        self._details: Sequence[Row] = ()
        # Transient: the display makes room for the closing table.
        self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True)

    def start(self) -> None:
        """Begin the display."""
        self._live.start()

    def rollouts(self, done: int, total: int) -> None:
        """Move the bar of rollouts."""
        self._bars.update(self._rollouts, completed=done, total=total)

    def step(self, report: StepReport) -> None:
        """Move the bar of steps and show the newest numbers."""
        self._bars.update(self._steps, completed=report.step, total=report.num_steps)
        self._rows = report.rows()

    def event(self, text: str) -> None:
        """Print the text above the display."""
        self._console.print(safe(text), markup=False)  # square brackets in it are no mark-up

    def details(self, rows: Sequence[Row], is_new: bool) -> None:
        """Show them below the newest numbers."""
        self._details = rows

    def finish(self, summary_rows: Sequence[Row]) -> None:
        """End the display and print the closing table."""
        self._live.stop()
        for line in format_table(summary_rows):
            self._console.print(safe(line), markup=False)

    def _render(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for name, value in (*self._rows, *self._details):
            table.add_row(name, Text(safe(value), overflow="ellipsis", no_wrap=True))  # no mark-up, and one line each
        return Group(self._bars, table)


def make_progress(
    mode: Literal["auto", "plain", "rich", "none"], stream: TextIO | None = None, with_rollouts: bool = True
) -> Progress:
    """The display that ``logging.progress`` asks for; ``auto`` is live only on a terminal that can redraw lines.

    Args:
        with_rollouts: whether it will be told of :meth:`Progress.rollouts`.
    """
    target = stream if stream is not None else sys.stdout
    if mode == "none":
        return SilentProgress()
    is_live = mode == "rich" or (mode == "auto" and target.isatty() and os.environ.get("TERM", "dumb") != "dumb")
    return RichProgress(target, with_rollouts) if is_live else PlainProgress(target)


__all__ = [
    "PlainProgress",
    "Progress",
    "RichProgress",
    "Row",
    "RunSummary",
    "SilentProgress",
    "StepReport",
    "format_duration",
    "format_table",
    "make_progress",
]
