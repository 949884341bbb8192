"""What happens to a run when hosts come and go, or what they share fails? Hosts are namespaces, see ``hosts.py``.

The driver is on host 1, which has no CPUs for Ray; the run's other processes are on the others. A row is survived when
the run makes further steps in time, ends in order, and its ledger balances with nothing lost or trained twice; or,
where it cannot go on, when it ends by itself with the cause and a later ``--resume`` does.

    python -m benchmarks.faults.lost_hosts [--row NAME ...]

Exit status 1 if a row was not survived. Needs root, iproute2, e2fsprogs and a loop device.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from actors.recording.event_log import read_events
from benchmarks.faults.evidence_store import EVIDENCE
from benchmarks.faults.hosts import Hosts, hosts, missing
from benchmarks.faults.kill_matrix import end_in_order
from benchmarks.faults.live_run import FaultTestError, LiveRun, make_small_model, write_small_config

NOTICED_S = 120.0
"""Ray takes a host that is cut off for dead after about a minute."""
START_S = 300.0
JOIN_S, GONE_S = 120.0, 60.0
HANGS_S, DISK_MIB = 30.0, 512
LEARNER_CPUS = 3
"""Room for the run's three processes: a learner rank and two rollout workers."""


@dataclass(frozen=True)
class Row:
    """A thing that happens.

    Attributes:
        num_cpus: CPUs of the hosts at the start.
        play: does it; returns the seconds from the loss, or from the moment the cure is there, to two more steps.
        rollout: how many rollout workers.
        resource_timeout_s: how long the run waits for room.
    """

    num_cpus: tuple[int, ...]
    play: Callable[[Hosts, LiveRun], float]
    rollout: Mapping[str, int] = field(default_factory=lambda: {"num_workers": 2})
    resource_timeout_s: float = 300.0


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
    run.wait_until(lambda: told(run, "restart", "start"), "told of the loss", NOTICED_S)
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


def rollouts_make_room(hosts: Hosts, run: LiveRun) -> float:
    """The learner's host loses power, and rollout workers have all room elsewhere; one of them makes room."""
    hosts.switch_off(learners_host(hosts, run))
    seconds = recovered(run)
    if "make room" not in run.log.read_text():
        raise run.failure("no rollout worker made room")
    return seconds


def rollouts_host_is_removed(hosts: Hosts, run: LiveRun) -> float:
    """A host that has a rollout worker and nothing else is switched off; the other worker goes on."""
    begin = time.monotonic()
    (other,) = {2, 3} - {learners_host(hosts, run)}
    hosts.switch_off(other)
    run.wait_until(lambda: told(run, "worker", " lost: "), "told of the loss", NOTICED_S)
    further(run, START_S)
    if told(run, "restart", ""):
        raise run.failure("the learner started again, which had nothing to do with it")
    return time.monotonic() - begin


def host_is_added(hosts: Hosts, run: LiveRun) -> float:
    """A host is switched on; seconds until a rollout worker there serves."""
    hosts.boot(3, 1)
    begin = time.monotonic()
    name = hosts.name(3)
    run.wait_until(lambda: name in {who["host"] for who in run.status()["workers"].values()}, "grown", JOIN_S)
    seconds = time.monotonic() - begin
    further(run, START_S)
    return seconds


def driver_is_killed(hosts: Hosts, run: LiveRun) -> float:
    """The driver on the head gets SIGKILL; what it had on the hosts goes, and a new one goes on."""
    before = {worker["pid"] for worker in run.status()["workers"].values()}
    run.kill("driver")
    begin = time.monotonic()
    while any(psutil.pid_exists(pid) for pid in before):
        if time.monotonic() - begin > GONE_S:
            raise run.failure(f"processes of the run are left {GONE_S:g} s after its driver")
        time.sleep(0.1)
    begin = time.monotonic()
    run.start(resume=True)
    further(run, START_S)
    return time.monotonic() - begin


def disk_hangs(hosts: Hosts, run: LiveRun) -> float:
    """Nothing can be written to the shared disk for half a minute; seconds from then on to two more steps."""
    disk = str(run.folder.parent)
    subprocess.run(["fsfreeze", "--freeze", disk], check=True)
    try:
        time.sleep(HANGS_S)
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", disk], check=True)
    seconds = further(run, START_S)
    if told(run, "restart", ""):
        raise run.failure("the run started again, though everything came back by itself")
    return seconds


ROWS = {
    "cut off, disk reachable, a spare": Row((0, LEARNER_CPUS, LEARNER_CPUS), cut_off),
    "switched off, a spare": Row((0, LEARNER_CPUS, LEARNER_CPUS), switched_off),
    "switched off, a host is added": Row((0, LEARNER_CPUS), switched_off_without_a_spare),
    "switched off, no host for too long": Row((0, LEARNER_CPUS), no_room_for_too_long, resource_timeout_s=20.0),
    "switched off, rollout workers have all other room": Row(
        (0, 2, 2), rollouts_make_room, {"num_workers": 3, "min_workers": 1}
    ),
    "a rollout worker's host is removed": Row(
        (0, 2, 2), rollouts_host_is_removed, {"num_workers": 2, "min_workers": 1}
    ),
    "a host is added: until it serves": Row((0, 2), host_is_added, {"num_workers": 1, "max_workers": 2}),
    "the driver is killed, and resumed": Row((0, LEARNER_CPUS), driver_is_killed),
    "the shared disk hangs for 30 s: from then on": Row((0, LEARNER_CPUS), disk_hangs),
}


@contextmanager
def shared_disk(folder: Path) -> Iterator[None]:
    """A file system of its own at ``folder``, which can be made to hang."""
    folder.mkdir()
    image = folder.with_suffix(".image")
    with image.open("wb") as file:
        file.truncate(DISK_MIB << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def told(run: LiveRun, kind: str, text: str) -> bool:
    """Whether the run has told of an event of a kind with this text in it."""
    return any(event["kind"] == kind and text in str(event["text"]) for event in events(run))


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
        rollout=dict(row.rollout),
        cluster={"num_cpus": None, "object_store_mib": None},
        recovery={"resource_timeout_s": row.resource_timeout_s},
        **EVIDENCE,
    )
    with shared_disk(folder / "runs"), hosts(folder / "hosts", row.num_cpus) as made:
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
    print("| what happens | seconds to two more steps | ledger |\n|---|---|---|")
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
