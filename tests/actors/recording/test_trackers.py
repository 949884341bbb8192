"""Trackers get the keys and numbers of metrics.jsonl, and cannot end a run. With the real packages where they are."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from actors.recording.event_log import read_events
from actors.recording.sinks import JsonlSink, further_sinks
from actors.recording.trackers import TRACKERS
from actors.recording.trackers.base import TrackerSink
from rollout.component import ComponentSpec, UserError

METRICS = {"reward/observed_mean": 0.25, "eval/test/accuracy": 0.5, "policy/kl": math.nan, "n": 3}
FINITE = {"reward/observed_mean": 0.25, "eval/test/accuracy": 0.5, "n": 3.0}
SETTINGS = {"name": "mine", "seed": 3, "reward": {"noise": [{"p": 0.1}]}}


class ListSink(TrackerSink):
    """Stands for a tracker."""

    package = "json"
    extra = "none"
    fails_at = -1
    wait: threading.Event | None = None

    def begin(self, name: str, settings: dict[str, Any], folder: Path) -> None:
        self.name, self.settings, self.steps, self.ended = name, settings, list[tuple[int, dict[str, float]]](), False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self.wait is not None:
            self.wait.wait(10.0)
        if step == self.fails_at:
            raise ConnectionError("no route\nto host")
        self.steps.append((step, dict(metrics)))

    def end(self) -> None:
        self.ended = True


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(json.dumps(SETTINGS))
    return tmp_path


def opened(folder: Path, last_valid_step: int | None = None, **options: Any) -> ListSink:
    sink = ListSink(ListSink.Config(**options))
    sink.open(folder, last_valid_step)
    return sink


def told(folder: Path) -> list[str]:
    return [event["text"] for event in read_events(folder / "events.jsonl") if event["kind"] == "tracker"]


def test_steps_go_on_in_order_and_what_is_not_finite_is_left_out(folder: Path) -> None:
    sink = opened(folder)
    for step in range(1, 4):
        sink.write(step, METRICS)
    sink.close()
    sink.close()
    assert sink.steps == [(step, FINITE) for step in (1, 2, 3)]
    assert (sink.name, sink.settings, sink.ended, told(folder)) == ("mine", SETTINGS, True, [])


@pytest.mark.parametrize(("last_valid_step", "kept"), [(2, [1, 2]), (-1, []), (None, [])])
def test_a_run_that_goes_on_begins_with_the_steps_that_stay(
    last_valid_step: int | None, kept: list[int], folder: Path
) -> None:
    file = JsonlSink(folder / "metrics.jsonl")
    for step in (1, 2, 3):
        file.write(step, METRICS)
    file.close()
    sink = opened(folder, last_valid_step)
    sink.write(3, {"n": 7})
    sink.close()
    assert sink.steps == [*((step, FINITE) for step in kept), (3, {"n": 7.0})]


def test_a_tracker_that_fails_is_turned_off_and_told_once(folder: Path) -> None:
    sink = opened(folder)
    sink.fails_at = 2
    for step in range(1, 5):
        sink.write(step, METRICS)
    sink.close()
    assert [step for step, _ in sink.steps] == [1] and not sink.ended
    assert told(folder) == ["json is turned off: ConnectionError: no route to host"]
    sink.write(5, METRICS)
    sink.close()
    assert len(told(folder)) == 1


def test_a_tracker_that_hangs_holds_up_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.recording.trackers.base.MAX_WAITING", 2)
    sink = opened(folder, close_timeout_s=0.05)
    sink.wait = threading.Event()
    for step in range(6):
        sink.write(step, METRICS)
    thread = sink._thread
    sink.close()
    assert told(folder)[0] == "json has not written everything in 0.05 s"
    assert "steps are left out" in told(folder)[1]
    sink.wait.set()
    assert thread is not None
    sink._queue.put(None, timeout=10.0)
    thread.join(10.0)
    assert not thread.is_alive() and 1 <= len(sink.steps) <= 3


@pytest.mark.parametrize("kind", TRACKERS)
def test_a_package_that_is_not_there_is_told_with_its_extra(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"logging\.sinks\.0: needs the package {kind}: pip install 'dvpo\[{kind}\]'"):
        further_sinks([ComponentSpec(type=kind)])


# --- the real packages, each in a process of its own ---

WRITE = """
import json, sys
from pathlib import Path
from actors.recording.sinks import further_sinks
from rollout.component import ComponentSpec
folder = Path(sys.argv[1])
for spec, last in ((json.loads(sys.argv[2]), None), (json.loads(sys.argv[2]), 1)):
    (sink,) = further_sinks([ComponentSpec(**spec)])
    sink.open(folder, last)
    for step in (1, 2) if last is None else (2,):
        sink.write(step, {"reward/observed_mean": step / 4, "eval/test/accuracy": 0.5, "policy/kl": float("nan")})
    sink.close()
"""
READ_MLFLOW = """
import json, sys
from mlflow.tracking import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1])
experiment = client.get_experiment_by_name("trial")
for run in client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"]):
    keys = run.data.metrics
    curves = {key: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)] for key in keys}
    print(json.dumps([run.info.run_name, run.data.params["seed"], run.info.status, curves]))
"""
READ_TRACKIO = """
import json
from trackio.sqlite_storage import SQLiteStorage
for run in SQLiteStorage.get_runs("trial"):
    logs = SQLiteStorage.get_logs("trial", run)
    keys = {key for line in logs for key in line} - {"step", "timestamp"}
    curves = {key: [(line["step"], line[key]) for line in logs if key in line] for key in keys}
    config = SQLiteStorage.get_run_config("trial", run)
    print(json.dumps([run.partition(" ")[0], str(config["seed"]), "FINISHED", curves]))
"""
CURVES = {"reward/observed_mean": [[1, 0.25], [2, 0.5]], "eval/test/accuracy": [[1, 0.5], [2, 0.5]]}


def needs(package: str) -> pytest.MarkDecorator:
    there = importlib.util.find_spec(package) is not None
    return pytest.mark.skipif(not there, reason=f"the extra '{package}' is not installed")


def python(program: str, *arguments: str, **environment: str) -> list[Any]:
    """Lines of JSON that a program prints."""
    environment = {**os.environ, "MLFLOW_ALLOW_FILE_STORE": "true", "WANDB_SILENT": "true", **environment}
    command = [sys.executable, "-c", program, *arguments]
    found = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert found.returncode == 0, found.stderr
    return [json.loads(line) for line in found.stdout.splitlines() if line.startswith("[")]


def write(folder: Path, kind: str, **environment: str) -> None:
    """Two steps, and then the second one again, as after a resume from the first."""
    file = JsonlSink(folder / "metrics.jsonl")
    file.write(1, {"reward/observed_mean": 0.25, "eval/test/accuracy": 0.5})
    file.close()
    python(WRITE, str(folder), json.dumps({"type": kind, "project": "trial"}), **environment)
    assert told(folder) == []


@pytest.mark.slow
@needs("mlflow")
def test_mlflow_reads_back_what_was_written(folder: Path) -> None:
    write(folder, "mlflow")
    expected = ["mine", "3", "FINISHED", CURVES]
    assert python(READ_MLFLOW, (folder / "mlruns").as_uri()) == [expected, expected]


@pytest.mark.slow
@needs("trackio")
def test_trackio_reads_back_what_was_written(folder: Path) -> None:
    place = {"TRACKIO_DIR": str(folder / "trackio")}
    write(folder, "trackio", **place)
    expected = ["mine", "3", "FINISHED", CURVES]
    assert python(READ_TRACKIO, **place) == [expected, expected]


@pytest.mark.slow
@needs("wandb")
def test_what_wandb_would_sync_is_what_was_written(folder: Path) -> None:
    write(folder, "wandb")
    files = sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == 2
    for file in files:
        run, curves = read_wandb(file)
        assert (run.display_name, run.project, run.run_group) == ("mine", "trial", "mine")
        assert [item.value_json for item in run.config.update if item.key == "seed"] == ["3"]
        assert curves == CURVES


def read_wandb(file: Path) -> tuple[Any, dict[str, list[list[float]]]]:
    """The run's record, and points by key."""
    from wandb.proto import wandb_internal_pb2

    run, curves = None, dict[str, list[list[float]]]()
    for data in leveldb_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        run = record.run if kind == "run" else run
        for item in record.history.item if kind == "history" else ():
            key = item.key or "/".join(item.nested_key)
            if not key.startswith("_"):
                curves.setdefault(key, []).append([record.history.step.num, json.loads(item.value_json)])
    return run, curves


def leveldb_records(data: bytes, block: int = 32768, head: int = 7) -> Iterator[bytes]:
    """Records of a log in LevelDB's format, after the seven bytes with which wandb begins a file."""
    place, parts = head, b""
    while place + head <= len(data):
        if block - place % block < head:
            place += block - place % block
            continue
        _, size, kind = struct.unpack_from("<IHB", data, place)
        parts += data[place + head : place + head + size]
        place += head + size
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""
