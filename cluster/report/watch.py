"""``dvpo watch``: a run as it goes on, read from its folder alone, in the display of ``dvpo train``."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from actors.recording.trajectory_log import step_files
from cluster.display.pace import Pace
from cluster.display.printable import one_line, printable
from cluster.display.progress import Progress
from cluster.display.report import Row, format_duration, intervals, with_interval
from cluster.report.page.phases import PHASES, phases_of
from cluster.report.run_record import CONFIG, METRICS, Settings, read_settings

Ending = Literal["finished", "stopped", "failed", "silent"]
EXIT_STATUS: Mapping[Ending, int] = {"finished": 0, "stopped": 0, "failed": 1, "silent": 1}
MAX_TEXT = 160
ESTIMATES = {"trust/": "", "correction/evidence_": ", evidence"}
"""Beginnings of the metrics that estimate error rates of the reward, and what is said of each."""


class Tail:
    """The lines of JSON that are added to a file; a file that was replaced by a shorter one is read anew."""

    def __init__(self, path: Path) -> None:
        self._path, self._place = path, 0

    def new(self) -> list[dict[str, Any]]:
        """Whole lines since the last call; what is no JSON object is left out."""
        try:
            size = self._path.stat().st_size
            self._place = 0 if size < self._place else self._place
            with self._path.open("rb") as file:
                file.seek(self._place)
                data = file.read()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._place += len(whole)
        return [line for line in map(_parsed, whole.splitlines()) if line is not None]


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


@dataclass(slots=True)
class Watcher:
    """Looks at a run's folder again and again.

    Args:
        folder: of the run; nothing of it is changed.
        progress: shows it.
        patience_s: seconds without any sign of life after which the run counts as gone.
        every_s: seconds between two looks.
        sleep, now: for tests; ``now`` is the time of day, as in the files.
    """

    folder: Path
    progress: Progress
    patience_s: float
    every_s: float = 1.0
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.time

    def watch(self) -> Ending:
        """Show the run until it ends; returns how."""
        settings = read_settings(self.folder)
        num_steps = settings.get("training.num_steps", 0)
        metrics, events = Tail(self.folder / METRICS), Tail(self.folder / "events.jsonl")
        pace = Pace(num_steps)
        last: dict[str, float] = {}
        stopped_at, alive_at, told_at = -math.inf, self.now(), None
        while True:
            # The attempt that goes on began when it wrote its configuration; what older ones left does not count.
            began = _changed(self.folder / CONFIG)
            for event in events.new():
                alive_at = self.now()
                self._show(event)
                if event.get("kind") == "stop":
                    stopped_at = max(stopped_at, float(event.get("time", 0.0)))
            lines = [_numbers(line) for line in metrics.new()]
            for line in lines:
                alive_at = self.now()
                if any(key.startswith("eval/") for key in line):
                    pace.evaluation = line
                if "time/step_s" in line:
                    last = line
            if lines and last:  # of many that were there already only the newest is shown
                self.progress.step(pace.report(int(last["step"]), last))
            status = _status(self.folder)
            if status.get("time") != told_at:  # not compared with the time here: another machine's clock may be off
                told_at, alive_at = status.get("time"), self.now()
            self.progress.details([*_now_rows(status, self.now()), *_detail_rows(last, self.folder)], bool(lines))
            if num_steps and last.get("step", 0) >= num_steps:
                return "finished"
            if _changed(self.folder / "error.txt") >= began:
                return "failed"
            if stopped_at >= began and not status.get("stages"):
                return "stopped"
            if self.now() - alive_at > self.patience_s:
                return "silent"
            self.sleep(self.every_s)

    def _show(self, event: Mapping[str, Any]) -> None:
        mark = "" if event.get("level") == "info" else f"{event.get('level', '')}: "
        self.progress.event(printable(f"step {event.get('step', '-')}: {mark}{event.get('text', '')}"))


def patience_of(settings: Settings) -> float:
    """How long a run may do nothing before it ends itself, and some."""
    return 1.2 * float(settings.get("cluster.step_timeout_s", 1800.0))


def ending_line(folder: Path, ending: Ending, patience_s: float) -> str:
    """How a run ended, and the next command."""
    told = {
        "finished": "the run is at its end",
        "stopped": "the run was stopped; --resume goes on with it",
        "failed": f"the run failed: see {folder / 'error.txt'}",
        "silent": f"no sign of life for {format_duration(patience_s)}: it was killed, or the folder is out of date",
    }
    return f"{told[ending]}; dvpo explain {folder} says more"


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return -math.inf


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    return {key: math.nan if value is None else float(value) for key, value in line.items()}


def _status(folder: Path) -> dict[str, Any]:
    try:
        return _parsed((folder / "status.json").read_bytes()) or {}
    except OSError:
        return {}


def _now_rows(status: Mapping[str, Any], now: float) -> list[Row]:
    stages = [f"{stage['name']} for {max(0.0, now - stage['since']):.0f} s" for stage in status.get("stages", ())]
    return [("now", one_line(", ".join(stages) or "-", MAX_TEXT))]


def _detail_rows(line: Mapping[str, float], folder: Path) -> list[Row]:
    """Phases of the last step, error rates as estimated, and a sample."""
    rows = []
    if line.get("time/step_s"):
        shares = [
            f"{name} {seconds / line['time/step_s']:.0%}" for name, seconds in zip(PHASES, phases_of(line), strict=True)
        ]
        rows.append(("last step", ", ".join(share for share in shares if not share.endswith(" 0%"))))
    ends = intervals(line)
    for begin, note in ESTIMATES.items():
        for kind in ("false positive", "false negative"):
            key = f"{begin}{kind.replace(' ', '_')}_rate"
            if key in line:
                rows.append((f"{kind} rate{note}", with_interval(line[key], ends.get(key))))
    return [*rows, *_sample_rows(folder)]


def _sample_rows(folder: Path) -> list[Row]:
    """The first trajectory of the newest step."""
    files = step_files(folder / "trajectories")
    found = Tail(files[max(files)]).new()[:1] if files else []
    if not found or not {"messages", "response"} <= found[0].keys():
        return []
    asked, said, reward = found[0]["messages"][-1].get("content"), found[0]["response"], found[0].get("observed_reward")
    return [
        ("asked", one_line(str(asked), MAX_TEXT)),
        ("answered", one_line(str(said), MAX_TEXT)),
        ("its reward", "-" if reward is None else f"{reward:g}"),
    ]
