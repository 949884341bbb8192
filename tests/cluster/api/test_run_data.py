"""A run's folder as tables: every number of the files is in its cell, and what is missing is null."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from cluster.api import UserError, load_run
from tests.cluster.report.made_runs import STEPS, Sample, make_ledger, make_run

TOKENS = {
    "texts": ["4", "<eos>"],
    "sampled": [True, True],
    "advantages": [0.5, None],
    "sampler": [-0.1, -0.2],
    "old": [-0.11, -0.21],
    "new": [-0.12, None],
    "levels": [0.25, 0.75],
    "values": [[[0.1, 0.9], [0.2, 0.8]], None],
    "num_left_out": 0,
}


def test_metrics_are_those_of_the_file(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", lambda step, line: {"policy/entropy": math.nan} if step == 3 else {})
    text = (folder / "metrics.jsonl").read_text().replace("NaN", "null")
    (folder / "metrics.jsonl").write_text(text)
    table = load_run(folder).metrics
    lines = [json.loads(line) for line in text.splitlines()]
    assert table.num_rows == len(lines) == STEPS + 1
    assert set(table.column_names) == {key for line in lines for key in line}
    for row, line in zip(table.to_pylist(), lines, strict=True):
        assert all(row[key] is None for key in row.keys() - line.keys())
        found = {key: None if isinstance(row[key], float) and math.isnan(row[key]) else row[key] for key in line}
        assert found == line
    assert math.isnan(table["policy/entropy"][3].as_py()) and table["policy/entropy"][0].as_py() is None


def test_trajectories_and_their_tokens(tmp_path: Path) -> None:
    def change(step: int, sample: Sample) -> dict[str, Any]:
        talk = [{"role": "assistant", "content": "4"}, {"role": "user", "content": "no", "more": 1}]
        return {"tokens": TOKENS, "corrected_reward": 0.25, "conversation": talk} if step == 2 else {}

    folder = make_run(tmp_path / "run", change_sample=change)
    run = load_run(folder)
    assert run.trajectories.num_rows == 8 * STEPS
    record = json.loads((folder / "trajectories" / "step-2.jsonl").read_text().splitlines()[0])
    row = run.trajectories.to_pylist()[8]
    for name, key in (("observed", "observed_reward"), ("clean", "clean_reward"), ("response", "response")):
        assert row[name] == record[key]
    assert (row["step"], row["prompt_id"], row["corrected"]) == (2, "p-2-0", 0.25)
    assert row["messages"] == record["messages"] and dict(row["parts"]) == record["reward_parts"]
    assert row["turns"] == [{"role": "assistant", "content": "4"}, {"role": "user", "content": "no"}]
    assert run.tokens.num_rows == 2 * 8
    first, second = run.tokens.to_pylist()[:2]
    assert first["values"] == TOKENS["values"][0] and first["levels"] == [0.25, 0.75]  # type: ignore[index]
    assert (first["position"], first["text"], first["rollout_logprob"], first["new_logprob"]) == (0, "4", -0.1, -0.12)
    assert (second["advantage"], second["values"], second["trajectory_id"]) == (None, None, row["trajectory_id"])


def test_half_a_surrogate_pair_in_a_text_spoils_no_table(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", change_sample=lambda step, sample: {"response": "a\ud800b"})
    assert load_run(folder).trajectories["response"][0].as_py() == "a?b"


def test_ledger_and_cells(tmp_path: Path) -> None:
    """Prompt p-1 has answers 'b' (epochs 0, 3), each scored 0 and 1, and 'a' (epochs 1, 2), whose true score is 1."""
    folder = make_run(tmp_path / "run", with_samples=False)
    make_ledger(folder, num_prompts=3, repeats=4)
    run = load_run(folder)
    assert run.ledger.num_rows == 12
    row = run.ledger.to_pylist()[4]
    expected = {"trajectory_id": "p-1#1", "prompt_id": "p-1", "epoch": 1, "state": "trained", "step": 5}
    assert {name: row[name] for name in expected} == expected
    assert (row["observed"], row["answer_key"], row["gold"], row["num_tokens"]) == (1.0, "a", 1.0, 3)
    cells = {cell["answer_key"]: cell for cell in run.cells.to_pylist() if cell["prompt_id"] == "p-1"}
    assert cells["a"] == {"prompt_id": "p-1", "answer_key": "a", "num_scores": 2, "sum_scores": 1.0, "golds": [1.0]}
    assert cells["b"]["golds"] == [] and cells["b"]["sum_scores"] == 1.0


def test_events_config_and_what_explain_says(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", events=({"kind": "worker", "text": "lost", "name": "rollout-0"},))
    run = load_run(str(folder))
    event = {"time": 1000.0, "step": 1, "kind": "worker", "level": "warning", "text": "lost"}
    assert run.events.to_pylist() == [event]
    assert run.config["training"]["num_steps"] == STEPS
    assert (run.verdict.state, run.findings) == ("finished", ())
    assert repr(run) == f"<Run 'made': {STEPS} of {STEPS} steps>"


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "run", with_samples=False))
    assert run.trajectories.num_rows == run.tokens.num_rows == 0
    for name in ("ledger", "cells"):
        with pytest.raises(UserError, match=r"has no ledger\.sqlite"):
            getattr(run, name)
    (run.folder / "ledger.sqlite").write_text("no data base")
    with pytest.raises(UserError, match="the ledger cannot be read"):
        _ = run.cells
    with pytest.raises(UserError, match="RUN: no such run: 'none'"):
        load_run("none")


def test_what_no_true_score_stands_behind_is_left_out(tmp_path: Path) -> None:
    drop = ("trust/", "reward/corrupted_frac")
    run = load_run(make_run(tmp_path / "run", drop=drop))
    assert "reward/clean_mean" not in run.metrics.column_names
    assert run.trajectories["clean"].null_count == run.trajectories.num_rows
    assert "no true score is known" in run.problems[0]
