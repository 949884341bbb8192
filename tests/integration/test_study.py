"""A study of real runs: goes on after a kill, goes on past a cell that fails, and has the numbers of `dvpo train`.

Also the short form of ``benchmarks/faults/exact_resume.py``.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.recording.event_log import read_events
from actors.recording.sinks import read_metrics as read_all
from benchmarks.faults.evidence_store import remembered_and_recorded
from benchmarks.faults.exact_resume import checkpoint_hashes, trained_ids
from cluster.study.config import Cell
from cluster.study.results import read_results
from tests.integration.traces import Begin, Trace
from tests.integration.whole_runs import Command, StartCommand, WriteConfig, read_metrics

pytestmark = pytest.mark.slow

BROKEN = (
    "from rollout.rewards.base import Reward\n"
    "class Broken(Reward):\n"
    "    async def __call__(self, prompt, trajectory):\n"
    "        raise KeyError('no such thing')\n"
)
VRPO: dict[str, Any] = {
    "algorithm": {"preset": "vrpo", "reward_correction": ["evidence"]},
    "reward.gold_labels": {"share": 0.3},
}
FIRST_SCORES = ("reward/observed_mean", "reward/clean_mean", "reward/corrupted_frac", "rollout/response_tokens_mean")
"""Metrics of the first step that no algorithm has a hand in."""
MACHINE_DEPENDENT = ("time", "rollout/tokens_per_s", "vllm/", "reward/num_")
"""Metrics of how fast, of how many engines there were, and of what was scored until the moment of the report."""


def write_study(tmp_path: Path, base: Path, **keys: Any) -> Path:
    study: dict[str, Any] = {
        "base": str(base),
        "output": str(tmp_path / "study"),
        "axes": {"algorithm": {"grpo": {"algorithm": "grpo"}, "rloo": {"algorithm": "rloo"}}},
        "seeds": [7],
        "num_slots": 1,
        **keys,
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


def test_a_study_goes_on_after_a_kill_and_past_cells_that_fail_and_has_the_numbers_of_a_run_that_was_killed(
    start_command: StartCommand, begin: Begin, write_config: WriteConfig, tmp_path: Path
) -> None:
    """Bit for bit, hence a cell and a run that was killed are both the run that nothing happened to.

    The cell is the third in its process, and nothing of those before is left. The run is killed while it writes a
    checkpoint, which leaves nothing on the machine, and resumed; what evidence remembers has counted each score of the
    ledger once.
    """
    (tmp_path / "broken.py").write_text(BROKEN)
    flips = [{"type": "symmetric_flip", "p": 0.3}]
    noises = {
        "broken": {"reward.functions": [{"type": "broken:Broken"}], "reward.noise": flips},
        "flips": {"reward.noise": flips},
    }
    training = {"eval_every_steps": 1, "num_steps": 8, "checkpoint_every_steps": 4}
    base = write_config(seed=7, training=training, rollout={"num_workers": 2})
    axes = {"algorithm": {"grpo": {"algorithm": "grpo"}, "vrpo": VRPO}, "noise": noises}
    file = write_study(tmp_path, base, axes=axes, keep="all")
    folder = tmp_path / "study"
    kill_in_the_second_cell(start_command("study", str(file)), folder)
    finish_after_the_kill(start_command("study", str(file)), folder)

    run = tmp_path / "runs" / "run"
    settings = {**VRPO, "reward.noise": flips}
    command = ("train", str(base), *(f"--set={key}={json.dumps(value)}" for key, value in settings.items()))
    kill_while_it_saves(begin(*command), run)
    resumed = start_command(*command, "--resume")
    assert resumed.finish() == 0, resumed.output
    cell = folder / "runs" / "base" / "flips" / "vrpo" / "seed-7"
    assert_same_numbers(*(read_all(path / "metrics.jsonl") for path in (cell, run)))
    assert len(hashes := checkpoint_hashes(cell)) > 10
    assert hashes == checkpoint_hashes(run)
    assert len(ids := trained_ids(cell)) == 8 * 16
    assert ids == trained_ids(run)
    remembered, recorded = remembered_and_recorded(run)
    assert remembered == recorded
    assert sum(number for number, _ in recorded) == 8 * 16


def kill_in_the_second_cell(study: Command, folder: Path) -> None:
    """SIGKILL to a study whose first cell has failed; of the second nothing is kept, and no process is left."""
    study.wait_for("base/broken/grpo/seed-7")
    deadline = time.monotonic() + 240.0
    while not (folder / "cells.jsonl").exists() or not (folder / "cells.jsonl").read_text().endswith("\n"):
        assert time.monotonic() < deadline, study.output
        time.sleep(0.1)
    study.note_processes()
    study.process.send_signal(signal.SIGKILL)
    study.process.wait()
    assert study.survivors(60.0) == [], "the end of its input ends a slot, in the middle of a cell"
    (line,) = (folder / "cells.jsonl").read_text().splitlines()
    assert json.loads(line)["cell"]["algorithm"] == "grpo"


def finish_after_the_kill(study: Command, folder: Path) -> None:
    """Go on with a file of results whose last line was cut; both cells of a broken reward fail, the others do not."""
    done = (folder / "cells.jsonl").read_text()
    with (folder / "cells.jsonl").open("a") as cells:
        cells.write('{"cell": {"algorithm": "rl')  # as a kill in the middle of a line would leave it
    assert study.finish() == 1, study.output
    assert "4 cells, 1 of them done already" in study.output
    assert "1 cells failed; --retry runs them once more" in study.output
    assert (folder / "cells.jsonl").read_text().startswith(done), "a result that was there was changed"
    results = read_results(folder)
    assert len(results) == 4
    for algorithm in ("grpo", "vrpo"):
        good = results[Cell(algorithm=algorithm, task="base", noise="flips", seed=7)]
        assert good.error is None
        assert [(point.step, point.samples) for point in good.curve] == [(step, 16 * step) for step in range(9)]
        bad = results[Cell(algorithm=algorithm, task="base", noise="broken", seed=7)]
        assert all(text in (bad.error or "") for text in ("KeyError: 'no such thing'", "reward.max_error_frac"))
    runs = [folder / "runs" / "base" / "flips" / algorithm / "seed-7" for algorithm in ("grpo", "vrpo")]
    common = [{key: read_metrics(run)[0][key] for key in FIRST_SCORES} for run in runs]
    assert common[0] == common[1], "the same responses and flips until the weights go apart"


def assert_same_numbers(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """All metrics but those of how fast it was."""
    assert len(found) == len(expected) == 1 + 8
    assert found[0].keys() == expected[0].keys() >= {"eval/test/accuracy"}
    assert len(expected[1]) > 60
    for ours, theirs in zip(found, expected, strict=True):
        keys = {key for key in theirs if not key.startswith(MACHINE_DEPENDENT)}
        assert {key: ours.get(key) for key in keys} == {key: theirs[key] for key in keys}


def kill_while_it_saves(run: Trace, folder: Path) -> None:
    """SIGKILL to the driver while the first checkpoint is written; what it leaves is a run that can go on."""
    run.note_until_started(num_processes=8)
    run.command.wait_for("learner ready")
    checkpoints, deadline = folder / "checkpoints", time.monotonic() + 240.0
    # The next best moment, if this process is held up during the first one, is right after it.
    while not list(checkpoints.glob(".step-*.partial")) and not (checkpoints / "step-4").exists():
        assert time.monotonic() < deadline, run.command.output
        time.sleep(0.002)
    run.command.process.send_signal(signal.SIGKILL)
    assert run.command.finish(60.0) == -signal.SIGKILL
    assert run.ports and run.shared
    run.assert_nothing_left()
    assert any("the driver was killed" in event["text"] for event in read_events(folder / "events.jsonl"))
    (session,) = (folder / "logs").iterdir()
    assert [path for path in session.iterdir() if path.name.startswith("worker-")], "what the workers printed is kept"


def test_a_cell_that_takes_too_long_is_a_failure_and_can_be_tried_again_as_a_run_of_its_own(
    start_command: StartCommand, write_config: WriteConfig, tmp_path: Path
) -> None:
    """First in a process that would serve all cells; then with a Ray of its own, and time enough."""
    axes = {"algorithm": {"grpo": {"algorithm": "grpo"}}}
    base = write_config()
    file = write_study(tmp_path, base, axes=axes, cell_timeout_s=0.5)
    for already, status in ((0, 1), (1, 0)):
        command = start_command("study", str(file))
        assert command.finish() == status, command.output
        assert f"1 cells, {already} of them done already" in command.output
        (result,) = read_results(tmp_path / "study").values()
        assert result.error == "not done within 0.5 s (cell_timeout_s)"
        assert result.curve == ()
        assert command.survivors() == []

    write_study(tmp_path, base, axes=axes, processes="run", num_slots=None)
    command = start_command("study", str(file), "--retry")
    assert command.finish() == 0, command.output
    assert "1 cells, 0 of them done already" in command.output
    (result,) = read_results(tmp_path / "study").values()
    assert result.error is None
    assert [point.step for point in result.curve] == [0, 3]
    left = {path.name for path in (tmp_path / "study" / "runs" / "base" / "base" / "grpo" / "seed-7").iterdir()}
    assert {"metrics.jsonl", "config.yaml"} <= left
    assert not left & {"checkpoints", "ledger.sqlite"}
    assert command.survivors() == []
    assert os.path.exists(tmp_path / "study" / "logs" / "slot-0.log")
