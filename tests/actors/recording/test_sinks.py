"""Metric sinks: what is in the files, also after NaN, a crash in the middle of a line, and a resume."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest

from actors.recording.sinks import JsonlSink, Sink, TensorBoardSink, read_metrics
from rollout.component import UserError
from tests.actors.recording.event_files import events, points


def steps(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_each_line_is_on_disk_at_once_and_is_strict_json(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "metrics.jsonl"
    sink = JsonlSink(path)
    sink.write(0, {"eval/test/accuracy": 0.5})
    sink.write(1, {"policy/loss": math.nan, "policy/kl": math.inf, "n": 3})

    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    records = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]  # before close
    assert [record.pop("time") > 1e9 for record in records] == [True, True]
    assert records == [
        {"step": 0, "eval/test/accuracy": 0.5},
        {"step": 1, "policy/loss": None, "policy/kl": None, "n": 3},
    ]
    sink.close()
    sink.close()


def test_numbers_of_other_libraries(tmp_path: Path) -> None:
    import numpy as np

    sink = JsonlSink(tmp_path / "m.jsonl")
    metrics: dict[str, Any] = {"a": np.float32(0.5), "b": np.int64(2)}
    sink.write(1, metrics)
    sink.close()
    (record,) = read_metrics(tmp_path / "m.jsonl")
    assert (record["a"], record["b"]) == (0.5, 2)


def test_resume_drops_the_steps_that_are_taken_again(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    first = JsonlSink(path)
    for step in range(6):
        first.write(step, {"a": step})
    first.close()
    with path.open("a") as file:
        file.write('{"step": 6, "a"')  # the machine went down here
    again = JsonlSink(path, resume_step=3)
    again.write(4, {"a": 40})
    assert steps(path) == [0, 1, 2, 3, 4]
    assert read_metrics(path)[-1]["a"] == 40
    again.close()
    again.write(5, {"a": 50})  # opened again, it keeps what it wrote
    assert steps(path) == [0, 1, 2, 3, 4, 5]
    again.close()


def test_a_sink_travels_to_another_process_before_its_first_write(tmp_path: Path) -> None:
    for sink in (JsonlSink(tmp_path / "m.jsonl", 2), TensorBoardSink(tmp_path / "tb", 2)):
        moved: Sink = pickle.loads(pickle.dumps(sink))
        moved.write(3, {"a": 1.0})
        moved.close()
    assert steps(tmp_path / "m.jsonl") == [3]
    assert len(list((tmp_path / "tb").iterdir())) == 1


def test_read_metrics(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1, "a": null}\n{"step": 2, "a": 0.5}\n{"step": 3, "a"')
    records = read_metrics(path)
    assert math.isnan(records[0]["a"])
    assert records[1:] == [{"step": 2, "a": 0.5}]
    path.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(UserError, match=r"m\.jsonl:2: not a JSON object"):
        read_metrics(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_metrics(tmp_path / "none.jsonl")


def test_tensorboard_has_the_same_points(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path)
    sink.write(1, {"policy/loss": 0.25, "policy/kl": math.nan})
    sink.write(2, {"policy/loss": 0.125})
    sink.close()
    sink.close()
    (file,) = tmp_path.iterdir()
    assert points(file) == [(1, "policy/loss", 0.25), (2, "policy/loss", 0.125)]
    first = events(file)[0]
    assert (first.file_version, first.HasField("session_log")) == ("brain.Event:2", False)


def test_tensorboard_is_told_which_steps_are_taken_again(tmp_path: Path) -> None:
    sink = TensorBoardSink(tmp_path, resume_step=3)
    sink.write(4, {"policy/loss": 0.5})
    sink.close()
    (file,) = tmp_path.iterdir()
    begin, start, point = events(file)
    assert (begin.file_version, begin.step) == ("brain.Event:2", 0)
    assert (start.session_log.status, start.step) == (start.session_log.START, 4)
    assert point.step == 4
