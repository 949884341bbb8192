"""What a run is doing, as a file and as lines."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from actors.recording.run_status import RunStatus


class FakeTime:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def read(path: Path) -> dict[str, object]:
    record: dict[str, object] = json.loads(path.read_text())
    return record


def test_file_follows_stages_and_workers(tmp_path: Path) -> None:
    path, clock = tmp_path / "status.json", FakeTime()
    status = RunStatus(path, clock)
    status.step = 7
    status.set_worker("rollout-0", 123, "node-a")
    with status.stage("train", ["p1", "p2"]):
        clock.now += 5.0
        with status.stage("checkpoint"):
            record = json.loads(path.read_text())
            assert record["step"] == 7
            assert [(s["name"], s["ids"]) for s in record["stages"]] == [("train", ["p1", "p2"]), ("checkpoint", [])]
            train, checkpoint = (stage["since"] for stage in record["stages"])
            assert checkpoint - train == pytest.approx(5.0, abs=0.5)
            assert checkpoint == pytest.approx(time.time(), abs=5.0)
            worker = record["workers"]["rollout-0"]
            assert worker == {"pid": 123, "host": "node-a", "last_event": "", "last_event_time": None}
        assert [stage["name"] for stage in json.loads(path.read_text())["stages"]] == ["train"]
    assert read(path)["stages"] == []
    assert read(path)["pid"] == os.getpid()
    assert os.listdir(tmp_path) == ["status.json"], "a temporary file was left"


def test_a_process_that_has_lost_the_run_leaves_the_file_to_the_other(tmp_path: Path) -> None:
    path, clock, has_it = tmp_path / "status.json", FakeTime(), True
    status = RunStatus(path, clock, lambda: has_it)
    status.step = 7
    has_it = False
    status.step = 8
    assert read(path)["step"] == 7
    assert status.step == 8


def test_two_equal_stages_side_by_side_end_one_by_one() -> None:
    clock = FakeTime()
    status = RunStatus(None, clock)
    first, second = status.stage("sync"), status.stage("sync")
    with first:
        clock.now += 3.0
        second.__enter__()
        clock.now += 4.0
    assert "stage sync for 4 s" in status.describe(), "the older of the two has ended"
    second.__exit__(None, None, None)
    assert "no stage is open" in status.describe()


def test_idle_counts_from_the_last_thing_done() -> None:
    clock = FakeTime()
    status = RunStatus(None, clock)
    clock.now += 10.0
    assert status.idle_s() == 10.0
    status.progress()
    clock.now += 3.0
    status.note("rollout-0", "took a request")
    assert status.idle_s() == 3.0, "an event is not progress"
    with pytest.raises(RuntimeError), status.stage("train"):
        clock.now += 2.0
        raise RuntimeError
    assert status.idle_s() == 0.0, "a stage that fails has ended too"


def test_describe_names_stages_ids_and_last_events() -> None:
    clock, waiting = FakeTime(), ["p0"]
    status = RunStatus(None, clock)
    status.set_worker("rollout-0", 11, "node-a")
    status.set_worker("learner-0", 12, "node-b")
    status.note("rollout-0", "took p0#1")
    with status.stage("wait", lambda: waiting):
        clock.now += 60.0
        waiting[:] = [f"p{i}" for i in range(25)]
        assert status.describe() == [
            "nothing got done for 60 s; 0 steps are done",
            f"stage wait for 60 s: {', '.join(f'p{i}' for i in range(20))} and 5 more",
            "learner-0 (pid 12 on node-b): no event yet",
            "rollout-0 (pid 11 on node-a): last event 60 s ago: took p0#1",
        ]
    status.set_worker("rollout-0", 99, "node-c")
    assert status.describe()[-2:] == [
        "learner-0 (pid 12 on node-b): no event yet",
        "rollout-0 (pid 99 on node-c): no event yet",  # a replacement starts afresh
    ]


def test_many_notes_are_written_once_a_second(tmp_path: Path) -> None:
    path, clock = tmp_path / "status.json", FakeTime()
    status = RunStatus(path, clock)
    status.note("reward-0", "first")
    written = path.stat().st_ino
    for i in range(100):
        status.note("reward-0", f"scored {i}")
    assert path.stat().st_ino == written
    clock.now += 1.0
    status.progress()
    assert json.loads(path.read_text())["workers"]["reward-0"]["last_event"] == "scored 99"


def test_a_file_that_cannot_be_written_is_told_and_does_not_end_the_run(tmp_path: Path) -> None:
    status = RunStatus(tmp_path / "missing" / "status.json")
    with status.stage("train"):
        assert any("out of date: FileNotFoundError" in line for line in status.describe())
    (tmp_path / "missing").mkdir()
    status.step = 1
    assert not any("out of date" in line for line in status.describe())
