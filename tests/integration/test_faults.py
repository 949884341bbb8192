"""Faults in real runs: they recover, balance, and are the runs that would have been.

The short form of ``benchmarks/faults``: four kills of one run and one exact resume; and a guard that takes a run back.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.recording.event_log import read_events
from benchmarks.faults import exact_resume
from benchmarks.faults.kill_matrix import INTERVAL, end_in_order, kill_once
from benchmarks.faults.live_run import LiveRun, write_small_config
from tests.integration.whole_runs import StartCommand, WriteConfig, read_metrics

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # several starts, one after the other

KILLS = [
    ("engine process", "during sync"),
    ("reward actor", "after sync"),
    ("learner rank", "during checkpoint"),
    ("driver", "before checkpoint"),
]
"""One of each way to recover; ``benchmarks/faults/kill_matrix.py`` has all victims at all moments."""


def test_four_kills_of_one_run(tmp_path: Path, tiny_model: Path) -> None:
    training = {"max_staleness": 1, "checkpoint_every_steps": INTERVAL}
    rollout = {"engine_process": "own"}
    run = LiveRun(write_small_config(tmp_path, tiny_model, "killed", training=training, rollout=rollout))
    try:
        run.start()
        run.wait_until(lambda: run.steps() >= 2, "past its second step", 300.0)
        cells = [kill_once(run, victim, moment, 180.0) for victim, moment in KILLS]
        end_in_order(run)
        account = run.ledger()
    finally:
        run.end()
    expected = [
        "rollout worker replaced",
        "reward worker replaced",
        "learner and controller restarted",
        "resumed by a new driver",
    ]
    assert [how for how, cell in zip(expected, cells, strict=True) if how not in cell.how] == []
    assert (account["num_lost"], account["num_trained_twice"], account["quarantined"]) == (0, 0, [])
    assert account["num_rollbacks"] == 2


def test_killed_and_resumed_is_the_run_that_would_have_been() -> None:
    assert exact_resume.main(["--kills", "1", "--steps", "8", "--workers", "1"]) == 0


def test_a_guard_takes_the_run_back_with_smaller_learning_rates_and_then_gives_up(
    tmp_path: Path, start_command: StartCommand, write_config: WriteConfig
) -> None:
    (tmp_path / "exploding.py").write_text(
        "def score(prompt, trajectory):\n    return 1e6 if trajectory.policy_version_min >= 3 else 1.0\n"
    )
    config = write_config(
        reward={"functions": [{"type": "exploding:score"}]},
        guards={"reward": {"action": "rollback", "max_abs": 100.0}, "max_rollbacks": 1},
        training={"num_steps": 100, "checkpoint_every_steps": 2},
    )
    run = start_command("train", str(config))
    assert run.finish() == 1, run.output
    events = read_events(tmp_path / "runs" / "run" / "events.jsonl")
    found = [event for event in events if event.get("guard") == "reward"]
    assert [(event["step"], event["action"], event["value"]) for event in found] == [(3, "rollback", 1e6)] * 2
    assert [event["text"] for event in events if event["kind"] == "rollback"] == [
        "learning rates are multiplied by 0.5 from here on"
    ]
    steps = read_metrics(tmp_path / "runs" / "run")
    assert [step["step"] for step in steps] == [1, 2, 3]
    rates = [step["policy/lr"] for step in steps]
    warming_up = [rates[0], 2 * rates[0], 0.5 * 3 * rates[0]]
    assert rates == pytest.approx(warming_up), "step 3 was done again after going back to step 2"
    assert "given up after 1 rollbacks (guards.max_rollbacks)" in run.output
    assert run.survivors() == []
