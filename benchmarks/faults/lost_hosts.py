"""What happens to a run when a whole host is lost? Hosts are namespaces of this machine, see ``hosts.py``.

The driver is on host 1, which has no CPUs for Ray; the run's other processes are on the others. A row is survived when
the run makes further steps in time, ends in order, and its ledger balances with nothing lost or trained twice; or,
where it cannot go on, when it ends by itself with the cause and a later ``--resume`` does.

    python -m benchmarks.faults.lost_hosts [--row NAME ...]

Exit status 1 if a row was not survived. Needs root and iproute2.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from actors.recording.event_log import read_events
from benchmarks.faults.evidence_store import EVIDENCE
from benchmarks.faults.hosts import Hosts, hosts, missing
from benchmarks.faults.kill_matrix import end_in_order
from benchmarks.faults.live_run import FaultTestError, LiveRun, make_small_model, write_small_config

NOTICED_S = 120.0
"""Ray takes a host that is cut off for dead after about a minute."""
START_S = 300.0
LEARNER_CPUS = 3
"""Room for the run's three processes: a learner rank and two rollout workers."""


@dataclass(frozen=True)
class Row:
    """A thing that happens.

    Attributes:
        num_cpus: CPUs of the hosts at the start.
        play: does it; returns the seconds from the loss, or from the moment the cure is there, to two more steps.
    """

    num_cpus: tuple[int, ...]
    play: Callable[[Hosts, LiveRun], float]


def learners_host(hosts: Hosts, run: LiveRun) -> int:
    """Where the learner rank is, and with it the rollout workers."""
    return hosts.number_of(run.status()["workers"]["learner-0"]["host"])


def further(run: LiveRun, within_s: float) -> float:
    """Seconds until two more steps are done than there are now."""
    begun, steps = time.monotonic(), run.steps()
    run.wait_until(lambda: run.steps() >= steps + 2, "two steps further", within_s)
    return time.monotonic() - begun


def recovered(run: LiveRun) -> float:
    """Seconds until the loss was told of and two more steps are done."""
    begin = time.monotonic()
    run.wait_until(lambda: any(event["kind"] == "restart" for event in events(run)), "told of the loss", NOTICED_S)
    further(run, START_S)
    return time.monotonic() - begin


def cut_off(hosts: Hosts, run: LiveRun) -> float:
    """The cable of the learner's host is pulled, and put back when the run is on another one."""
    lost = learners_host(hosts, run)
    hosts.cut(lost)
    seconds = recovered(run)
    hosts.join(lost)
    further(run, START_S)  # what comes back disturbs nothing
    return seconds


def switched_off(hosts: Hosts, run: LiveRun) -> float:
    """The learner's host loses power; another one has room."""
    hosts.switch_off(learners_host(hosts, run))
    return recovered(run)


def switched_off_without_a_spare(hosts: Hosts, run: LiveRun) -> float:
    """The learner's host loses power, and no other has room until one is added; the run waits, and says so."""
    hosts.switch_off(learners_host(hosts, run))
    run.wait_until(
        lambda: "wait for room" in run.stages() and "waiting for room" in run.log.read_text(),
        "waiting for room",
        NOTICED_S,
    )
    hosts.boot(3, LEARNER_CPUS)
    begin = time.monotonic()
    further(run, START_S)
    return time.monotonic() - begin


def no_room_for_too_long(hosts: Hosts, run: LiveRun) -> float:
    """As before, but nobody adds a host: it ends with the cause, and goes on later."""
    hosts.switch_off(learners_host(hosts, run))
    if run.finish(NOTICED_S + 60.0) != 1 or "no room in the cluster for 20 s (recovery.resource_timeout_s)" not in (
        run.log.read_text()
    ):
        raise run.failure("it did not end with the cause")
    hosts.boot(3, LEARNER_CPUS)
    begin = time.monotonic()
    run.start(resume=True)
    further(run, START_S)
    return time.monotonic() - begin


ROWS = {
    "cut off, disk reachable, a spare": Row((0, LEARNER_CPUS, LEARNER_CPUS), cut_off),
    "switched off, a spare": Row((0, LEARNER_CPUS, LEARNER_CPUS), switched_off),
    "switched off, a host is added": Row((0, LEARNER_CPUS), switched_off_without_a_spare),
    "switched off, no host for too long": Row((0, LEARNER_CPUS), no_room_for_too_long),
}


def events(run: LiveRun) -> list[dict[str, object]]:
    """What the run has told so far."""
    return [dict(event) for event in read_events(run.folder / "events.jsonl")]


def play(name: str, folder: Path, model: Path) -> str:
    """Play one row; returns it as a line of a table.

    Raises:
        FaultTestError: it was not survived.
    """
    row = ROWS[name]
    config = write_small_config(
        folder,
        model,
        "run",
        training={"max_staleness": 1, "checkpoint_every_steps": 5},
        rollout={"num_workers": 2},
        cluster={"num_cpus": None, "object_store_mib": None},
        recovery={"resource_timeout_s": 20.0 if row.play is no_room_for_too_long else 300.0},
        **EVIDENCE,
    )
    with hosts(folder / "hosts", row.num_cpus) as made:
        run = LiveRun(config, within=made.within(1), environment=made.environment)
        try:
            run.start()
            run.wait_until(lambda: run.steps() >= 6, "past step 6", START_S)
            seconds = row.play(made, run)
            end_in_order(run)
            account = run.ledger()
        finally:
            run.end()
    lost, twice = account["num_lost"], account["num_trained_twice"]
    if lost or twice:
        raise run.failure(f"{lost} trajectories lost, {twice} trained twice")
    return f"| {name} | {seconds:.0f} | {account['states']['trained']} trained once, 0 lost, 0 twice |"


def main() -> int:
    """Play the rows that are asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", action="append", choices=ROWS, help="repeatable; all by default")
    wanted = parser.parse_args().row or list(ROWS)
    if reason := missing():
        print(f"not possible here: {reason}", file=sys.stderr)
        return 2
    failures = 0
    print("| what happens to the learner's host | seconds to two more steps | ledger |\n|---|---|---|")
    for name in wanted:
        with tempfile.TemporaryDirectory(prefix="dvpo-hosts-") as folder:
            try:
                print(play(name, Path(folder), make_small_model(Path(folder) / "model")), flush=True)
            except FaultTestError as error:
                failures += 1
                print(f"| {name} | - | {error} |", flush=True)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
