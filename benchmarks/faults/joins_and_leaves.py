"""Hosts join and leave at random while the demo is trained: does the run end as if nothing had happened?

The demo with ``max_staleness: 0`` is run twice: undisturbed on this machine with one rollout worker, and on hosts made
of namespaces (``hosts.py``), of which one has the driver and the learner, and up to three have a rollout worker each.
At random steps one of these is switched on or off. All files of the last checkpoint have to be equal byte for byte, the
ledger has to balance with nothing lost or trained twice, and a host that joins has to serve in time.

    python -m benchmarks.faults.joins_and_leaves [--events 10] [--steps 240] [--seed 0]

Exit status 1 if one of it is not so. Needs root, iproute2 and the demo's model.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from actors.recording.event_log import read_events
from benchmarks.faults.exact_resume import checkpoint_hashes, require_end, trained_ids
from benchmarks.faults.hosts import Hosts, hosts, missing
from benchmarks.faults.live_run import ROOT, FaultTestError, LiveRun

ROLLOUT_HOSTS = (2, 3, 4)
START_S, NOTICED_S, STEP_S = 300.0, 120.0, 600.0
LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Event:
    """One host that came or went.

    Attributes:
        what: ``joins`` or ``leaves``.
        seconds: until its worker served, or until the loss was told.
    """

    step: int
    host: int
    what: str
    seconds: float

    @property
    def line(self) -> str:
        """A row of the table."""
        return f"| {self.step} | {self.what} | {self.host} | {self.seconds:.1f} |"


def joins(made: Hosts, run: LiveRun, host: int) -> Event:
    """Switch a host on; over when a rollout worker there serves, another one than it had before."""
    step, name = run.steps(), made.name(host)
    before = processes_on(run, name)
    made.boot(host, 1)
    seconds = run.wait_until(lambda: bool(processes_on(run, name) - before), f"with a worker on {name}", NOTICED_S)
    return Event(step, host, "joins", seconds)


def processes_on(run: LiveRun, host: str) -> set[int]:
    """Process ids of the workers on a host, a lost one's included until another takes its place."""
    return {facts["pid"] for facts in run.status().get("workers", {}).values() if facts["host"] == host}


def leaves(made: Hosts, run: LiveRun, host: int) -> Event:
    """Switch a host off; over when its worker was told lost."""
    step, name = run.steps(), made.name(host)
    told = num_lost(run)
    made.switch_off(host)
    return Event(step, host, "leaves", run.wait_until(lambda: num_lost(run) > told, f"without {name}", NOTICED_S))


def num_lost(run: LiveRun) -> int:
    """Losses of rollout workers that the run has told of."""
    told = read_events(run.folder / "events.jsonl")
    return sum(
        event["kind"] == "worker" and "rollout" in event["text"] and " lost: " in event["text"] for event in told
    )


def disturb(made: Hosts, run: LiveRun, steps: Sequence[int], rng: random.Random) -> list[Event]:
    """At each of these steps switch a host on or off; at once where none is left, for then there are no steps."""
    events = []
    for step in steps:
        there = [host for host in ROLLOUT_HOSTS if host in made.holders]
        away = [host for host in ROLLOUT_HOSTS if host not in made.holders]
        if there:
            run.wait_until(lambda step=step: run.steps() >= step, f"at step {step}", STEP_S, LOOK_S)  # type: ignore[misc]
        goes = bool(there) and (not away or rng.random() < 0.5)
        events.append(leaves(made, run, rng.choice(there)) if goes else joins(made, run, rng.choice(away)))
        print(events[-1].line, flush=True)
    return events


def demo(folder: Path, name: str, num_steps: int, seed: int) -> Path:
    """The demo in lock-step, with up to three rollout workers; returns its configuration file."""
    settings: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
    settings |= {"name": name, "seed": seed, "output_dir": str(folder / "runs")}
    settings["model"]["path"] = str(ROOT / settings["model"]["path"])
    settings["training"] |= {"num_steps": num_steps, "max_staleness": 0, "eval_every_steps": 0}
    settings["rollout"] |= {"num_workers": 1, "min_workers": 1, "max_workers": 3 if name == "disturbed" else 1}
    settings["cluster"] |= {"cpus_per_rollout_worker": 1.0}
    settings["logging"] = {"progress": "plain", "tensorboard": False}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def differences(undisturbed: LiveRun, disturbed: LiveRun) -> list[str]:
    """What is not as it should be, in words; the ledgers have to balance to begin with."""
    found = []
    for run in (undisturbed, disturbed):
        account = run.ledger()
        if account["num_lost"] or account["num_trained_twice"]:
            found.append(f"{run.folder.name}: {account['num_lost']} lost, {account['num_trained_twice']} trained twice")
    if trained_ids(undisturbed.folder) != trained_ids(disturbed.folder):
        found.append("other trajectories were trained on")
    hashes = [checkpoint_hashes(run.folder) for run in (undisturbed, disturbed)]
    differing = sorted(name for name in hashes[0] | hashes[1] if hashes[0].get(name) != hashes[1].get(name))
    print(f"files of the last checkpoint: {len(hashes[0])}, different: {', '.join(differing) or 'none'}")
    return found + [f"the checkpoints differ in {name}" for name in differing]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both, and compare; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--join-within", type=float, default=30.0, help="seconds until a host that joins has to serve")
    options = parser.parse_args(arguments)
    if reason := missing():
        print(f"not possible here: {reason}", file=sys.stderr)
        return 2
    rng = random.Random(options.seed)
    steps = sorted(rng.sample(range(5, options.steps - 20), options.events))
    print("| step | what a host does | host | seconds until it serves, or until the loss is told |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="dvpo-joins-") as text, hosts(Path(text, "hosts"), (1, 1)) as made:
        folder = Path(text)
        disturbed = LiveRun(
            demo(folder, "disturbed", options.steps, options.seed),
            within=made.within(1),
            environment=made.environment,
        )
        undisturbed = LiveRun(demo(folder, "undisturbed", options.steps, options.seed))
        try:
            disturbed.start()
            disturbed.wait_until(lambda: disturbed.steps() >= 2, "past step 2", START_S)
            events = disturb(made, disturbed, steps, rng)
            last = disturbed.steps()
            require_end(disturbed)
            undisturbed.start()
            require_end(undisturbed)
            problems = differences(undisturbed, disturbed)
        finally:
            disturbed.end()
            undisturbed.end()
    if last >= options.steps:
        problems.append("the run ended before the last event: give it more --steps")
    late = [event for event in events if event.what == "joins" and event.seconds > options.join_within]
    problems += [f"host {event.host} served after {event.seconds:.0f} s" for event in late]
    print("\n".join(problems) or f"{len(events)} joins and leaves: the same weights, nothing lost, nothing twice")
    return int(bool(problems))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FaultTestError as error:
        print(error)
        sys.exit(1)
