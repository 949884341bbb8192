"""Is a run that was killed and resumed the run that would have been?

One run goes to its end undisturbed. The same run, from the same seed, is killed (SIGKILL to the driver) at random
moments and resumed until it is done too. With ``max_staleness: 0`` in float32 on one thread the files of the last
checkpoint have to be equal byte for byte, which covers policy, critic, both optimisers, schedules, running scales and
random streams. With staleness above 0 it is the set of trained trajectories that has to be equal.

    python -m benchmarks.faults.exact_resume [--kills 5] [--staleness 0]

Exit status 1 if they differ.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults.live_run import PROMPT_POLL_S, LiveRun, make_small_model, write_small_config
from learner.storage.manifest import MANIFEST, find_newest_complete

INTERVAL = 4
START_TIMEOUT_S = 400.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--staleness", type=int, default=0)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="rollout workers")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        model = make_small_model(Path(folder) / "model")
        training = {"num_steps": options.steps, "checkpoint_every_steps": INTERVAL, "max_staleness": options.staleness}
        sections = {"training": training, "rollout": {"num_workers": options.workers}, "cluster": {"num_cpus": 5}}
        straight = LiveRun(write_small_config(model.parent, model, "straight", **sections))
        killed = LiveRun(write_small_config(model.parent, model, "killed", **sections))
        try:
            straight.start()
            require_end(straight)
            moments = kill_and_resume(killed, options.kills, options.steps, random.Random(options.seed))
            return report(straight, killed, moments, exact=options.staleness == 0)
        finally:
            straight.end()
            killed.end()


def kill_and_resume(run: LiveRun, num_kills: int, num_steps: int, rng: random.Random) -> list[str]:
    """Kill at random moments, the last one while a checkpoint is written; returns the moments in words."""
    moments = []
    steps = sorted(rng.sample(range(2, num_steps - INTERVAL), num_kills - 1))
    run.start()
    for step in steps:
        run.wait_until(lambda step=step: run.status().get("step", 0) >= step, f"at step {step}", START_TIMEOUT_S)  # type: ignore[misc]
        moments.append(f"step {run.status()['step']} in {', '.join(sorted(run.stages())) or 'between stages'}")
        run.kill("driver")
        run.start(resume=True)
    writing = run.folder / "checkpoints"
    run.wait_until(lambda: any(writing.glob(".step-*.partial")), "writing a checkpoint", START_TIMEOUT_S, PROMPT_POLL_S)
    moments.append(f"step {run.status()['step']} while a checkpoint is written")
    run.kill("driver")
    run.start(resume=True)
    require_end(run)
    return moments


def require_end(run: LiveRun) -> None:
    """The run ends in order."""
    if (status := run.finish(START_TIMEOUT_S)) != 0:
        raise run.failure(f"exit status {status}")


def report(straight: LiveRun, killed: LiveRun, moments: Sequence[str], exact: bool) -> int:
    """Print what was compared; returns the exit status."""
    print(f"killed {len(moments)} times: {'; '.join(moments)}")
    accounts = [run.ledger() for run in (straight, killed)]
    print(f"ledgers: {accounts[0]['verdict']} | {accounts[1]['verdict']}")
    same_ids = trained_ids(straight.folder) == trained_ids(killed.folder)
    print(f"trained trajectories: {len(trained_ids(straight.folder))}, {'the same' if same_ids else 'DIFFERENT'}")
    if not exact:
        return 0 if same_ids else 1
    hashes = [checkpoint_hashes(run.folder) for run in (straight, killed)]
    differing = sorted(name for name in hashes[0] | hashes[1] if hashes[0].get(name) != hashes[1].get(name))
    print(f"files of the last checkpoint: {len(hashes[0])}, different: {', '.join(differing) or 'none'}")
    return 0 if same_ids and not differing else 1


def trained_ids(run_dir: Path) -> list[str]:
    """Ids of all trajectories that a run was trained on, by its ledger."""
    with sqlite3.connect(f"file:{run_dir / 'ledger.sqlite'}?mode=ro", uri=True) as ledger:
        return sorted(name for (name,) in ledger.execute("SELECT trajectory_id FROM samples WHERE state = 'trained'"))


def checkpoint_hashes(run_dir: Path) -> dict[str, str]:
    """SHA-256 of every file of a run's last checkpoint."""
    newest, _ = find_newest_complete(run_dir / "checkpoints")
    assert newest is not None
    manifest = json.loads((newest / MANIFEST).read_text())
    return {name: entry["sha256"] for name, entry in manifest["files"].items()}


if __name__ == "__main__":
    sys.exit(main())
