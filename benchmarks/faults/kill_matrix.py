"""Which process can be killed, and when, and what happens? One kill at a time, in real runs.

Victims: a rollout worker that is idle, one that serves requests, the engine's own process, the reward actor, a learner
rank, the controller, and the driver (which is then started again with ``--resume``). Moments: before, during and after
the weights are sent to the engines, and before, during and after a checkpoint is written. A kill counts as survived
when two more steps are done in time and, at the end of the victim's run, the ledger balances, the run ends in order, no
process is left, and what evidence remembers of scores is what the ledger says was trained on. Further rows freeze a
process (SIGSTOP) instead of killing it.

    python -m benchmarks.faults.kill_matrix [--victim NAME ...] [--moment NAME ...]

Exit status 1 if a single kill was not survived.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.recording.event_log import read_events
from benchmarks.faults.evidence_store import EVIDENCE, remembered_and_recorded
from benchmarks.faults.live_run import PROMPT_POLL_S, FaultTestError, LiveRun, make_small_model, write_small_config
from learner.storage.manifest import MANIFEST

START_TIMEOUT_S = 300.0
INTERVAL = 5
"""Steps between checkpoints."""

VICTIMS = {
    "rollout worker, idle": ("rollout-0", 0),
    "rollout worker, serving": ("rollout-0", 1),
    "engine process": ("engine-0", 1),
    "reward actor": ("reward-0", 1),
    "learner rank": ("learner-0", 1),
    "controller": ("controller", 1),
    "driver": ("driver", 1),
}
"""Process by name, and ``training.max_staleness``: with 0 no request is open while weights are sent."""

FROZEN = {
    "rollout worker, frozen": ("rollout-0", 1),
    "engine process, frozen": ("engine-0", 1),
    "reward actor, frozen": ("reward-0", 1),
    "learner rank, frozen": ("learner-0", 1),
    "controller, frozen": ("controller", 1),
}
"""Stopped (SIGSTOP) instead of killed: only a deadline can tell."""

TOLD = {
    "restart": "learner and controller restarted",
    "resume": "resumed by a new driver",
    "stall": "watchdog reported",
}
"""What kinds of events tell of a recovery."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One kill.

    Attributes:
        stages: that were open when it came.
        recovery_s: seconds until two more steps were done.
        how: what the run did, from its events.
    """

    victim: str
    moment: str
    stages: str
    recovery_s: float
    how: str


def await_moment(run: LiveRun, moment: str, timeout_s: float) -> None:
    """Return at the moment to kill."""
    when, what = moment.split(" ")
    if what == "sync":
        if when == "before":
            run.wait_until(lambda: "train" in run.stages(), "training", timeout_s, PROMPT_POLL_S)
            return
        run.wait_until(lambda: "sync" in run.stages(), "sending weights", timeout_s, PROMPT_POLL_S)
        if when == "after":
            run.wait_until(lambda: "sync" not in run.stages(), "done with sending weights", timeout_s, PROMPT_POLL_S)
        return
    target = (run.steps() // INTERVAL + 1) * INTERVAL
    if when == "before":
        run.wait_until(lambda: run.status().get("step", 0) >= target, f"at step {target}", timeout_s, PROMPT_POLL_S)
        return
    folder = run.folder / "checkpoints"
    if when == "during":
        run.wait_until(lambda: any(folder.glob(".step-*.partial")), "writing a checkpoint", timeout_s, PROMPT_POLL_S)
    else:
        path = folder / f"step-{target}" / MANIFEST
        run.wait_until(path.exists, f"with checkpoint {target}", timeout_s, PROMPT_POLL_S)


def kill_once(run: LiveRun, victim: str, moment: str, timeout_s: float) -> Cell:
    """Wait for the moment, kill, and wait until two more steps are done.

    Raises:
        FaultTestError: they were not done in time.
    """
    process, _ = (VICTIMS | FROZEN)[victim]
    await_moment(run, moment, timeout_s)
    stages = ", ".join(sorted(run.stages())) or "between stages"
    step, events = run.status()["step"], num_events(run)
    if victim in FROZEN:
        run.freeze(process)
    else:
        run.kill(process)
    killed = time.monotonic()
    if process == "driver":
        run.start(resume=True)
    recovered = lambda: run.steps() >= step + 2 and what_happened(run, events) != ""  # noqa: E731
    run.wait_until(recovered, f"past step {step + 2} after the kill", timeout_s)
    return Cell(victim, moment, stages, time.monotonic() - killed, what_happened(run, events))


def num_events(run: LiveRun) -> int:
    """Lines of the event log."""
    path = run.folder / "events.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def what_happened(run: LiveRun, since: int) -> str:
    """How the run recovered, by its events after line ``since``; empty if it has not noticed anything yet."""
    found = []
    for event in read_events(run.folder / "events.jsonl")[since:]:
        if event["kind"] == "worker" and "replaced" in event["text"]:
            found.append(f"{event['worker'].rpartition('-')[0]} worker replaced")
        elif event["kind"] == "restart" and "controller and workers stay" in event["text"]:
            found.append("learner restarted")
        elif event["kind"] in TOLD:
            found.append(TOLD[event["kind"]])
    return ", ".join(dict.fromkeys(found))


def run_victim(victim: str, moments: Sequence[str], model: Path, timeout_s: float) -> list[Cell]:
    """All kills of one victim in one run, which is then ended by SIGTERM and has to balance."""
    process, staleness = (VICTIMS | FROZEN)[victim]
    name = victim.replace(",", "").replace(" ", "-")
    training = {"max_staleness": staleness, "checkpoint_every_steps": INTERVAL}
    sections: dict[str, Any] = {"training": training, "recovery": {"max_restarts": 20}, **EVIDENCE}
    if process.startswith("engine"):
        sections["rollout"] = {"engine_process": "own"}
    if victim in FROZEN:
        sections["recovery"] |= {"request_timeout_s": 20.0, "stall_timeout_s": 40.0}
        sections["reward"] = {**sections["reward"], "timeout_s": 5.0, "max_retries": 0}
    run = LiveRun(write_small_config(model.parent, model, name, **sections))
    cells = []
    try:
        run.start()
        run.wait_until(lambda: run.steps() >= 2, "past its second step", START_TIMEOUT_S)
        for moment in moments:
            cells.append(kill_once(run, victim, moment, timeout_s))
            show(cells[-1])
        end_in_order(run)
    finally:
        run.end()
    return cells


def end_in_order(run: LiveRun) -> None:
    """SIGTERM; the run has to write a checkpoint, balance, have counted each score once, and leave nothing behind."""
    assert run.process is not None
    run.note_processes()
    run.process.send_signal(signal.SIGTERM)
    if (status := run.finish(120.0)) != 143:
        raise run.failure(f"exit status {status} after SIGTERM")
    if left := run.survivors():
        raise run.failure(f"processes left behind: {left}")
    run.ledger()
    remembered, recorded = remembered_and_recorded(run.folder)
    if remembered != recorded:
        raise run.failure(f"evidence has counted {remembered}, and the ledger {recorded}")


def show(cell: Cell) -> None:
    """One row of the table."""
    row = (cell.victim, cell.moment, cell.stages, f"{cell.recovery_s:.0f}", cell.how)
    print(f"| {' | '.join(row)} |", flush=True)


MOMENTS = [f"{when} {what}" for what in ("sync", "checkpoint") for when in ("before", "during", "after")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the matrix; prints a table and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--victim", action="append", choices=list(VICTIMS | FROZEN))
    parser.add_argument("--moment", action="append", choices=MOMENTS)
    parser.add_argument("--deadline", type=float, default=180.0, help="seconds to recover in")
    options = parser.parse_args(arguments)
    failures = []
    print("| killed | when | stages open | seconds to two more steps | what the run did |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        model = make_small_model(Path(folder) / "model")
        for victim in options.victim or (VICTIMS | FROZEN):
            moments = MOMENTS[:1] if victim in FROZEN else MOMENTS
            try:
                run_victim(victim, options.moment or moments, model, options.deadline)
            except FaultTestError as error:
                failures.append(victim)
                print(f"{victim}: {error}", file=sys.stderr, flush=True)
    print(f"\n{'all survived' if not failures else 'not survived: ' + ', '.join(failures)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
