"""``dvpo explain``: what it prints, and what it says of folders that are no runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from tests.cluster.report.made_runs import interval, make_run

Dvpo = Callable[..., Result]


def test_a_healthy_run(tmp_path: Path, dvpo: Dvpo) -> None:
    folder = make_run(tmp_path / "run")
    found = dvpo("explain", folder)
    assert found.exit_code == 0, found.output
    lines = found.output.splitlines()
    assert lines[0] == f"made ({folder})"
    assert lines[1].startswith("All 40 steps are done. Held-out accuracy went from 0.500 to 0.900 (+40.0 points).")
    assert any(line.startswith("nothing looks wrong: none of 19 known causes") for line in lines)


def test_causes_with_evidence_and_the_next_command(tmp_path: Path, dvpo: Dvpo) -> None:
    folder = make_run(
        tmp_path / "run",
        lambda step, line: {"rollout/truncated_frac": 0.5, **interval("trust/j", 0.0)},
        with_samples=False,
    )
    lines = dvpo("explain", folder).output.splitlines()
    assert any(line.startswith("2 of ") and "look first at: The reward says next to nothing" in line for line in lines)
    assert "   - rollout/truncated_frac: 50% of responses are cut at 24 tokens, 50% at the start" in lines
    assert any(line.startswith("   > give more room: dvpo train CONFIG --set rollout.sampling") for line in lines)
    assert all(len(line) <= 100 or " " not in line.strip() for line in lines)


def test_json_has_everything(tmp_path: Path, dvpo: Dvpo) -> None:
    folder = make_run(tmp_path / "run", lambda step, line: {"rollout/truncated_frac": 0.5}, with_samples=False)
    found = json.loads(dvpo("explain", folder, "--json").output)
    assert found["state"] == "finished" and found["num_causes"] == 19
    (finding,) = found["findings"]
    assert finding["cause"] == "truncation"
    assert finding["evidence"][0]["source"] == "rollout/truncated_frac"
    assert found["facts"]["steps"] == "40 of 40"
    assert any("no trajectories" in problem for problem in found["problems"])


@pytest.mark.parametrize("name", ["none", "."])
def test_what_is_no_run_is_told_once(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dvpo: Dvpo) -> None:
    monkeypatch.chdir(tmp_path)
    found = dvpo("explain", name)
    assert found.exit_code == 2
    assert found.output.startswith("error: RUN: ") and found.output.count("\n") == 1


def test_a_run_that_was_killed_is_not_called_finished(tmp_path: Path, dvpo: Dvpo) -> None:
    folder = make_run(tmp_path / "run", num_steps=12, with_samples=False)
    assert "12 of 40 steps are done: the run goes on, or it was killed." in dvpo("explain", folder).output
    (folder / "error.txt").write_text("RuntimeError: it broke\n")
    assert "The run failed after step 12: RuntimeError: it broke" in dvpo("explain", folder).output
