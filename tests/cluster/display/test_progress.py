"""The display: the same numbers on a terminal and in a log, and nothing that can stop a run."""

from __future__ import annotations

import io
import math
import os
import re
import signal
from pathlib import Path

import pytest

from actors.recording.sinks import JsonlSink
from cluster.config.run_config import RunConfig
from cluster.display.pace import Pace
from cluster.display.progress import (
    PlainProgress,
    Progress,
    RichProgress,
    RunSummary,
    SilentProgress,
    StepReport,
    format_duration,
    format_table,
    make_progress,
)
from cluster.display.summary import summary_rows

METRICS = {
    "rollout/num_trajectories": 128.0,
    "rollout/tokens_per_s": 2931.4,
    "rollout/staleness_mean": 0.75,
    "reward/observed_mean": 0.6125,
    "time/step_s": 3.14,
    "eval/test/accuracy": 0.5,
    "eval/ood/accuracy": 0.25,
}
LINE = (
    "step 12/60  128 rollouts  throughput 2931 tokens/s  observed reward 0.613  "
    "clean held-out accuracy test 0.500  ood 0.250  staleness 0.75  step time 3.1 s  time left 2:31"
)


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


class Closed(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def play(progress: Progress) -> None:
    """A whole run."""
    progress.start()
    progress.event("rollout workers [ready]")
    for done in (0, 64, 128):
        progress.rollouts(done, 128)
    progress.step(StepReport.from_metrics(12, 60, METRICS, time_left_s=151.2))
    progress.finish([("checkpoint", "runs/[a]/step-60"), ("accuracy", "0.5 -> 0.8")])


def test_a_report_picks_its_numbers_from_the_metrics() -> None:
    report = StepReport.from_metrics(12, 60, METRICS, time_left_s=151.2)
    assert report == StepReport(12, 60, 128, 2931.4, 0.6125, 0.75, 3.14, 151.2, {"test": 0.5, "ood": 0.25})
    assert report.line() == LINE
    assert StepReport.from_metrics(12, 60, METRICS, evaluation={"eval/test/accuracy": 0.75}).accuracy == {"test": 0.75}


def test_shares_have_an_error_bar() -> None:
    """Those that the metrics have one for."""
    ends = {"reward/observed_mean_low": 0.5223, "reward/observed_mean_high": 0.697}
    evaluation = {"eval/test/accuracy": 0.5, "eval/test/accuracy_low": 0.401, "eval/test/accuracy_high": 0.599}
    evaluation["eval/ood/accuracy"] = 0.25
    shown = dict(StepReport.from_metrics(12, 60, {**METRICS, **ends}, evaluation=evaluation).rows())
    assert shown["observed reward"] == "0.613 [0.522, 0.697]"
    assert shown["clean held-out accuracy"] == "test 0.500 [0.401, 0.599]  ood 0.250"


def test_the_closing_table_has_error_bars(tmp_path: Path) -> None:
    start = {"eval/test/accuracy": 0.25, "eval/test/accuracy_low": 0.1, "eval/test/accuracy_high": 0.45}
    end = {"eval/test/accuracy": 0.5, "eval/test/accuracy_low": 0.3, "eval/test/accuracy_high": 0.7}
    trained = {"time/step_s": 2.0, "rollout/num_response_tokens": 8.0, "reward/clean_mean": 0.4}
    sink = JsonlSink(tmp_path / "metrics.jsonl", None)
    sink.write(0, start)
    for step, mean in enumerate((0.2, 0.3, 0.6), start=1):
        bars = {"reward/observed_mean_low": mean - 0.1, "reward/observed_mean_high": mean + 0.1}
        sink.write(step, {**trained, "reward/observed_mean": mean, **bars, **(end if step == 3 else {})})
    sink.close()
    config = RunConfig.model_validate({"model": {"path": "m"}})
    result = {"step": 3, "checkpoint": "c", "initial_accuracy": {"test": 0.25}, "final_accuracy": {"test": 0.5}}
    shown = dict(summary_rows(config, tmp_path, result))
    accuracy = "0.250 [0.100, 0.450] -> 0.500 [0.300, 0.700] (+25.0 points)"
    assert shown["clean accuracy, in-domain (test)"] == accuracy
    assert shown["observed reward in training"] == "0.200 [0.100, 0.300] -> 0.600 [0.500, 0.700]"
    assert shown["clean reward in training"] == "0.400 -> 0.400"  # without an interval where scores are no shares


class Clock:
    """Time as a test says."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.mark.parametrize(
    ("first", "last", "times", "expected"),
    [
        (1, 5, (10.0, 14.0, 20.0), ("0:40", "0:12", "0:10")),  # the first step's own 10 s, then 4 s, then 5 s a step
        (41, 44, (10.0, 14.0), ("0:30", "0:08")),  # after a restart
        (1, 1, (10.0,), ("0:00",)),  # nothing is left
    ],
)
def test_the_time_left_is_estimated_from_the_first_step_on(
    first: int, last: int, times: tuple[float, ...], expected: tuple[str, ...]
) -> None:
    clock = Clock()
    pace, shown = Pace(last, clock), []
    for number, clock.seconds in enumerate(times):
        shown.append(dict(pace.report(first + number, {"time/step_s": 10.0}).rows())["time left"])
    assert tuple(shown) == expected


def test_without_a_step_the_live_display_says_that_it_is_estimating() -> None:
    from rich.console import Console

    progress = RichProgress(Terminal())
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as capture:
        console.print(progress._render())
    assert re.search(r"time left\s+estimating", capture.get())


def test_a_report_without_numbers_says_so() -> None:
    report = StepReport.from_metrics(1, 2, {})
    assert math.isnan(report.observed_reward)
    assert report.line() == (
        "step 1/2  0 rollouts  throughput - tokens/s  observed reward -  clean held-out accuracy -  staleness -  "
        "step time - s  time left estimating"
    )


def test_plain_is_one_line_a_step() -> None:
    stream = io.StringIO()
    play(PlainProgress(stream))
    assert stream.getvalue().splitlines() == [
        "[0:00] rollout workers [ready]",
        LINE,
        "checkpoint  runs/[a]/step-60",
        "accuracy    0.5 -> 0.8",
    ]


def test_plain_outlives_its_reader() -> None:
    play(PlainProgress(Closed()))
    stream = io.StringIO()
    stream.close()
    play(PlainProgress(stream))


def test_plain_flushes_each_line() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream, os.fdopen(reader) as log:
        PlainProgress(stream).event("here")
        assert log.readline() == "[0:00] here\n"


def test_rich_shows_everything() -> None:
    stream = Terminal()
    progress = RichProgress(stream)
    play(progress)
    progress.finish([])  # ending twice is harmless
    shown = stream.getvalue()
    assert "rollout workers [ready]" in shown  # square brackets are not mark-up
    assert "checkpoint  runs/[a]/step-60" in shown


def test_rich_table_has_the_newest_numbers() -> None:
    from rich.console import Console

    progress = RichProgress(Terminal())
    progress.rollouts(64, 128)
    progress.step(StepReport.from_metrics(12, 60, METRICS, time_left_s=151.2))
    console = Console(file=io.StringIO(), width=100)
    with console.capture() as capture:
        console.print(progress._render())
    shown = capture.get()
    for text in ("12/60", "64/128", "2931 tokens/s", "0.613", "test 0.500  ood 0.250", "0.75", "2:31"):
        assert text in shown


def test_failing_before_the_start_leaves_the_terminal_alone() -> None:
    stream = Terminal()
    RichProgress(stream).finish([])
    assert stream.getvalue().strip() == ""


@pytest.mark.parametrize(
    ("mode", "stream", "term", "kind"),
    [
        ("auto", Terminal(), "xterm", RichProgress),
        ("auto", Terminal(), "dumb", PlainProgress),
        ("auto", io.StringIO(), "xterm", PlainProgress),
        ("plain", Terminal(), "xterm", PlainProgress),
        ("rich", io.StringIO(), "dumb", RichProgress),
        ("none", Terminal(), "xterm", SilentProgress),
    ],
)
def test_modes(mode: str, stream: io.StringIO, term: str, kind: type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", term)
    progress = make_progress(mode, stream)  # type: ignore[arg-type]
    assert type(progress) is kind


def test_silent_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    play(SilentProgress())
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0:00"),
        (59.6, "1:00"),
        (3599.0, "59:59"),
        (3725.0, "1:02:05"),
        (-3.0, "0:00"),
        (math.nan, "-"),
        (math.inf, "-"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_table() -> None:
    assert format_table([("a", "1"), ("long name", "")]) == ["a          1", "long name"]
    assert format_table([]) == []


@pytest.mark.parametrize(
    ("stopped_by", "status", "name"), [(None, 0, ""), (signal.SIGINT, 130, "SIGINT"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_exit_status(stopped_by: int | None, status: int, name: str) -> None:
    summary = RunSummary(stopped_by=stopped_by)
    assert (summary.exit_status, summary.signal_name) == (status, name)
