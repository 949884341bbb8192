"""What a run writes beside checkpoints and ledger, on a full file system: whole or not at all, and not twice."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.recording.event_log import EventLog, read_events
from actors.recording.sinks import JsonlSink, TensorBoardSink
from tests.actors.recording.event_files import points
from tests.small_disk import fill, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 1 << 20) as folder:
        yield folder


def metrics(step: int) -> dict[str, float]:
    """A line of about 3,000 bytes, so that some cross the end of a page and fit by half."""
    return {f"area/quantity_{i}": step + i / 8 for i in range(120)}


def test_metrics_are_written_once_when_there_is_space(disk: Path) -> None:
    sink = JsonlSink(disk / "metrics.jsonl")
    sink.write(1, metrics(1))
    filler = fill(disk / "filler")
    written = (disk / "metrics.jsonl").stat().st_size
    for _ in range(3):
        with pytest.raises(OSError) as failure:
            sink.write(2, metrics(2))
        assert failure.value.errno == errno.ENOSPC
        assert (disk / "metrics.jsonl").stat().st_size == written
    filler.unlink()
    sink.write(2, metrics(2))
    sink.close()
    lines = [json.loads(line) for line in (disk / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert lines[1]["area/quantity_119"] == 2 + 119 / 8


def test_tensorboard_neither_hangs_nor_loses_points(disk: Path) -> None:
    sink = TensorBoardSink(disk / "tensorboard", resume_step=0)
    filler = fill(disk / "filler")
    for _ in range(30):  # more than any queue of a writer thread would take
        with pytest.raises(OSError) as failure:
            sink.write(1, metrics(1))
        assert failure.value.errno == errno.ENOSPC
    filler.unlink()
    sink.write(1, metrics(1))
    filler = fill(disk / "filler")
    with pytest.raises(OSError):
        sink.write(2, metrics(2))
    filler.unlink()
    sink.write(2, metrics(2))
    sink.close()
    (file,) = (disk / "tensorboard").iterdir()
    expected = [(step, key, value) for step in (1, 2) for key, value in metrics(step).items()]
    assert points(file) == expected


def test_events_wait_for_space_in_their_order(disk: Path) -> None:
    path = disk / "events.jsonl"
    driver, controller = EventLog(path), EventLog(path)
    driver.write("start", 0, "x" * 1000)
    filler = fill(disk / "filler")
    for step in range(1, 8):
        controller.write("disk", step, "y" * 1000)
    assert len(read_events(path)) < 8
    filler.unlink()
    driver.write("stop", 9, "")
    controller.write("disk", 8, "there is space again")
    events = read_events(path)
    assert [event["step"] for event in events if event["kind"] == "disk"] == list(range(1, 9))
    assert [event["kind"] for event in events if event["kind"] != "disk"] == ["start", "stop"]


def test_another_failure_of_the_event_log_is_raised(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        EventLog(tmp_path).write("start", 0, "")
