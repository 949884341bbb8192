"""``dvpo watch``: what it shows of a folder that grows, when it ends, and with which exit status."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from rich.console import Console

from cluster.display.progress import PlainProgress, RichProgress
from cluster.report.watch import Ending, Tail, Watcher
from tests.cluster.report.made_runs import make_run

Dvpo = Callable[..., Result]


def stamp(folder: Path, at: float) -> None:
    """When the attempt began."""
    os.utime(folder / "config.yaml", (at, at))


class Clock:
    """Time that passes only while the watcher sleeps; something may happen meanwhile."""

    def __init__(self, *happenings: Callable[[], object]) -> None:
        self.time, self.happenings = 5000.0, list(happenings)

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        if self.happenings:
            self.happenings.pop(0)()


def watch(folder: Path, *happenings: Callable[[], object], patience_s: float = 30.0) -> tuple[Ending, list[str]]:
    stream, clock = io.StringIO(), Clock(*happenings)
    watcher = Watcher(
        folder, PlainProgress(stream), patience_s, every_s=10.0, sleep=clock.sleep, now=lambda: clock.time
    )
    return watcher.watch(), stream.getvalue().splitlines()


def add(path: Path, *lines: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


def test_it_follows_a_run_to_its_end(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text("\n".join(lines[:39]) + "\n" + lines[39][:20])
    (folder / "status.json").write_text(json.dumps({"time": 5000.0, "stages": [{"name": "wait", "since": 4990.0}]}))

    def go_on(text: str) -> Callable[[], object]:
        def append() -> None:
            with (folder / "metrics.jsonl").open("a") as file:
                file.write(text)

        return append

    def warn() -> None:
        add(folder / "events.jsonl", {"time": 5010.0, "step": 39, "kind": "guard", "level": "warning", "text": "odd"})

    ending, shown = watch(folder, lambda: None, go_on(lines[39][20:] + "\n"), warn, go_on(lines[40] + "\n"))
    assert ending == "finished"
    steps = [line.split("  ")[0] for line in shown if line.startswith("step ")]
    assert steps == ["step 38/40", "step 39/40", "step 40/40"]
    assert any(line.endswith("step 39: warning: odd") for line in shown)
    details = [line.strip() for line in shown]
    assert "now                  wait for 10 s" in details
    assert "last step            wait 25%, other 75%" in details
    assert "false positive rate  0.100 [0.070, 0.130]" in details
    assert any(line.startswith("asked  ") for line in details) and any(
        line.startswith("its reward") for line in details
    )
    assert any("clean held-out accuracy test 0.900 [0.870, 0.930]" in line for line in shown)


def test_how_a_run_may_end(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", num_steps=4)
    stamp(folder, 4000.0)
    assert watch(folder)[0] == "silent"
    stop = {"time": 4500.0, "step": 4, "kind": "stop", "level": "info", "text": "stopping"}
    add(folder / "events.jsonl", stop)
    assert watch(folder)[0] == "stopped"
    stamp(folder, 4600.0)  # it was resumed since
    assert watch(folder)[0] == "silent"
    (folder / "error.txt").write_text("RuntimeError: it broke\n")
    os.utime(folder / "error.txt", (4700.0, 4700.0))
    assert watch(folder)[0] == "failed"
    stamp(folder, 4800.0)
    assert watch(folder)[0] == "silent"


def test_a_sign_of_life_is_waited_for(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", num_steps=4)
    times: list[float] = []

    def live() -> None:
        times.append(5000.0 + 10.0 * len(times) + 10.0)
        (folder / "status.json").write_text(json.dumps({"time": times[-1], "stages": []}))

    assert watch(folder, *[live] * 9, patience_s=25.0)[0] == "silent"
    assert len(times) == 9


def test_a_file_that_a_resume_has_cut_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    tail = Tail(path)
    assert tail.new() == []
    path.write_text('{"a": 1}\n{"a": 2}\nbroken\n[1]\n{"a": 3')
    assert tail.new() == [{"a": 1}, {"a": 2}]
    assert tail.new() == []
    path.write_text('{"a": 1}\n')
    assert tail.new() == [{"a": 1}]


HARM = {"response": "\x1b[2J[/red]\r\u202e9", "messages": [{"role": "user", "content": "a\nb" + "x" * 500}]}


def test_what_a_model_says_moves_no_cursor(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", change_sample=lambda step, sample: HARM)
    event = {"time": 1.0, "step": 1, "kind": "x", "level": "error", "text": "\x1b]0;title\x07"}
    add(folder / "events.jsonl", event)
    _, shown = watch(folder)
    text = "\n".join(shown)
    assert not set(text) & set("\x1b\r\x07\u202e")
    assert "\\u001b[2J[/red] \\u202e9" in text and "a b" + "x" * 100 in text and "x" * 200 not in text


@pytest.mark.parametrize("width", [30, 60, 200])
def test_the_live_display_fits_its_terminal(width: int, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", change_sample=lambda step, sample: HARM)
    stream = io.StringIO()
    progress = RichProgress(stream, with_rollouts=False)
    Watcher(folder, progress, 30.0, sleep=lambda seconds: None).watch()
    console = Console(file=stream, width=width, force_terminal=False)
    console.print(progress._render())
    lines = stream.getvalue().splitlines()
    assert all(len(line.rstrip()) <= width for line in lines[-12:])
    assert any("steps" in line for line in lines) and not any("rollouts" in line for line in lines)


def test_the_command(tmp_path: Path, dvpo: Dvpo) -> None:
    done = dvpo("watch", make_run(tmp_path / "done"))
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[0].startswith("step 40/40  128 rollouts")
    assert done.output.splitlines()[-1].startswith("the run is at its end; dvpo explain ")
    gone = dvpo("watch", make_run(tmp_path / "gone", num_steps=3), "--patience", "0.01")
    assert gone.exit_code == 1 and "no sign of life for 0:00" in gone.output
    none = dvpo("watch", tmp_path / "none")
    assert none.exit_code == 2 and none.output.startswith("error: RUN: no such run")
