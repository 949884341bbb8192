"""Faults in real runs: they recover, balance, and are the runs that would have been.

The short form of ``benchmarks/faults/kill_matrix.py``: three kills of one run. A kill of the driver, the short form of
``exact_resume.py``, is in test_study.py, which has a run to compare with.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.faults.evidence_store import EVIDENCE
from benchmarks.faults.kill_matrix import INTERVAL, end_in_order, kill_once
from benchmarks.faults.live_run import LiveRun, write_small_config

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # several starts, one after the other

KILLS = [
    ("engine process", "during sync"),
    ("reward actor", "after sync"),
    ("learner rank", "during checkpoint"),
]
"""One of each way to recover; ``benchmarks/faults/kill_matrix.py`` has all victims at all moments."""


def test_three_kills_of_one_run(tmp_path: Path, tiny_model: Path) -> None:
    training = {"max_staleness": 1, "checkpoint_every_steps": INTERVAL}
    rollout = {"engine_process": "own"}
    run = LiveRun(write_small_config(tmp_path, tiny_model, "killed", training=training, rollout=rollout, **EVIDENCE))
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
        "learner restarted",
    ]
    assert [how for how, cell in zip(expected, cells, strict=True) if how not in cell.how] == []
    assert (account["num_lost"], account["num_trained_twice"], account["quarantined"]) == (0, 0, [])
    assert account["num_rollbacks"] == 1
