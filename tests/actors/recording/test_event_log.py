"""events.jsonl with several writers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actors.recording.event_log import EventLog, read_events

REPOSITORY = Path(__file__).resolve().parents[3]
WRITER = """
import sys
from pathlib import Path
from actors.recording.event_log import EventLog
log = EventLog(Path(sys.argv[1]))
for i in range(300):
    log.write("test", i, "x" * 2000, writer=sys.argv[2])
"""


def test_a_line_has_the_keys_in_order_and_details(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    assert read_events(path) == []
    EventLog(path).write("worker", 3, "rollout-0 died: ü", "warning", worker="rollout-0", path=Path("/a"))
    line = path.read_text(encoding="utf-8")
    assert line.endswith("}\n")
    record = json.loads(line)
    assert list(record) == ["time", "step", "kind", "level", "text", "worker", "path"]
    assert abs(record.pop("time") - time.time()) < 60.0
    assert record == {
        "step": 3,
        "kind": "worker",
        "level": "warning",
        "text": "rollout-0 died: ü",
        "worker": "rollout-0",
        "path": "/a",
    }
    with pytest.raises(ValueError, match="time"):
        EventLog(path).write("worker", 3, "", time=1.0)


def test_lines_of_two_processes_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name], cwd=REPOSITORY) for name in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    events = read_events(path)
    for name in "ab":
        assert [event["step"] for event in events if event["writer"] == name] == list(range(300))
    assert len(events) == 600


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.write("start", 0, "first")
    with path.open("a") as file:
        file.write('{"time": 1, "st')
    assert [event["text"] for event in read_events(path)] == ["first"]
