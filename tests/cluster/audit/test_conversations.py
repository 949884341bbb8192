"""Logged conversations are read back for an audit with all that a reward may look at."""

from __future__ import annotations

import json
from pathlib import Path

from cluster.audit.responses import logged_responses
from cluster.config.run_config import load_config
from rollout.trajectory import Outcome


def test_a_logged_conversation_is_read_back(run_file: Path) -> None:
    config = load_config(run_file)
    said = [{"role": "assistant", "content": "5"}, {"role": "user", "content": "no"}]
    row = {
        "trajectory_id": "p#1",
        "messages": [{"role": "user", "content": "guess"}],
        "reference": None,
        "response": "5",
        "finish_reason": "length",
        "conversation": said,
        "outcome": {"metrics": {"found": 0.0}, "facts": {"number": 7}},
    }
    single = {key: value for key, value in row.items() if key not in ("conversation", "outcome")}
    folder = config.run_dir / "trajectories"
    folder.mkdir(parents=True)
    (folder / "step-1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (row, single)))
    several, one = (response.trajectory for response in logged_responses(config))
    assert several.messages == tuple(said)
    assert several.outcome == Outcome({"found": 0.0}, {"number": 7})
    assert (one.messages, one.outcome) == ((), None)
