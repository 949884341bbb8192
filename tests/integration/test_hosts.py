"""Hosts that come and go during a real run, on hosts made of namespaces: the run is the one that would have been.

The short form of ``benchmarks/faults/joins_and_leaves.py``, and of rows of ``lost_hosts.py``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.faults.hosts import hosts, missing
from benchmarks.faults.joins_and_leaves import joins, leaves
from benchmarks.faults.live_run import ROOT, LiveRun, write_small_config
from learner.storage.manifest import MANIFEST

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(missing()), reason=f"hosts cannot be made here: {missing()}"),
]
EVERY = 5
"""Steps between checkpoints, all of which are kept."""


def hashes(run: LiveRun, step: int) -> dict[str, str]:
    """SHA-256 of every file of a checkpoint."""
    manifest = json.loads((run.folder / "checkpoints" / f"step-{step}" / MANIFEST).read_text())
    return {name: entry["sha256"] for name, entry in manifest["files"].items()}


def test_a_host_joins_another_leaves_and_the_weights_are_those_of_the_undisturbed_run(
    tmp_path: Path, tiny_model: Path
) -> None:
    training = {"max_staleness": 0, "checkpoint_every_steps": EVERY, "keep_checkpoints": 1000}
    own_ray = {"num_cpus": None, "object_store_mib": None}
    sections = {"training": training, "rollout": {"num_workers": 1, "max_workers": 2}}
    alone = LiveRun(write_small_config(tmp_path, tiny_model, "alone", training=training))
    with hosts(tmp_path / "hosts", (1, 1)) as made:
        config = write_small_config(tmp_path, tiny_model, "disturbed", cluster=own_ray, **sections)
        disturbed = LiveRun(config, within=made.within(1), environment=made.environment)
        try:
            disturbed.start()
            disturbed.wait_until(lambda: disturbed.steps() >= 2, "past step 2", 240.0)
            learner = disturbed.status()["workers"]["learner-0"]
            assert made.number_of(learner["host"]) == 1, "beside the driver"
            joins(made, disturbed, 3)
            leaves(made, disturbed, 2)  # the one that was there from the beginning
            last = (disturbed.steps() // EVERY + 2) * EVERY
            complete = disturbed.folder / "checkpoints" / f"step-{last}" / MANIFEST
            disturbed.wait_until(complete.exists, "further", 240.0)
            assert disturbed.status()["workers"]["learner-0"] == learner | {"last_event": "", "last_event_time": None}
            order = [sys.executable, "-m", "cluster.cli", "scale", str(disturbed.folder), "--rollouts", "1"]
            subprocess.run(order, cwd=ROOT, check=True)  # rollout-0 gets the room of rollout-1, which leaves
            worker = lambda: disturbed.status()["workers"].get("rollout-0", {}).get("host")  # noqa: E731
            disturbed.wait_until(lambda: worker() == made.name(3), "scaled", 240.0)
            last = (disturbed.steps() // EVERY + 1) * EVERY
            complete = disturbed.folder / "checkpoints" / f"step-{last}" / MANIFEST
            disturbed.wait_until(complete.exists, "further", 240.0)
            assert disturbed.process is not None
            disturbed.process.terminate()
            assert disturbed.finish(120.0) == 143, disturbed.log.read_text()
        finally:
            disturbed.end()
    try:
        alone.start()
        complete = alone.folder / "checkpoints" / f"step-{last}" / MANIFEST
        alone.wait_until(complete.exists, f"at step {last}", 400.0)
    finally:
        alone.end()
    account = disturbed.ledger()
    assert (account["num_lost"], account["num_trained_twice"], account["quarantined"]) == (0, 0, [])
    assert len(found := hashes(disturbed, last)) > 10
    assert found == hashes(alone, last)
    assert "has joined" in disturbed.log.read_text() and "rollout-1 has left" in disturbed.log.read_text()
