"""The promised entry on a cluster: ``ray job submit --working-dir . -- python -m cluster.cli train CONFIG``.

Others may fill the cluster's object store: Ray then gives what finds no place in shared memory a file on the disk, and
the run is slower.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.integration.whole_runs import REPOSITORY, Command, StartCommand, WriteConfig, read_metrics

pytestmark = pytest.mark.slow

RAY = str(Path(sys.executable).parent / "ray")
HOLD_OBJECTS = """
import sys
import time
import numpy
import ray
from ray._private.internal_api import memory_summary
ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
total = int(ray.cluster_resources()["object_store_memory"])
held = []
for size in [1 << 20] * (total >> 20) + [150_000] * 10:
    reference = ray.put(numpy.zeros(size, numpy.uint8))
    held.append((reference, ray.get(reference)))  # what a process looks at can neither be moved to the disk nor evicted
print(memory_summary(sys.argv[1], stats_only=True), flush=True)
time.sleep(600)
"""


@dataclass(frozen=True)
class Head:
    """A running ``ray start --head``, and where others join it."""

    process: psutil.Process
    address: str


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def cluster_environment(tmp_path: Path) -> dict[str, str]:
    """What a user has set: the environment is active, and token authentication is on."""
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ADDRESS": f"http://127.0.0.1:{free_port()}",
    }


@pytest.fixture
def ray_head(cluster_environment: dict[str, str], start_command: StartCommand) -> Iterator[Head]:
    """A head with a dashboard and a store of 100 MB, in the foreground so that it can be ended by its process id."""
    gcs_port, port = free_port(), cluster_environment["RAY_ADDRESS"].rsplit(":", 1)[1]
    environment = {key: value for key, value in cluster_environment.items() if key != "RAY_ADDRESS"}
    temp_dir = Path("/tmp") / f"dvpo-{os.getpid()}"  # short: Ray puts sockets below it
    options = ["--block", "--num-cpus=4", "--object-store-memory=100000000", f"--temp-dir={temp_dir}"]
    options += ["--node-ip-address=127.0.0.1"]
    head = start_command(
        "start",
        "--head",
        f"--port={gcs_port}",
        f"--dashboard-port={port}",
        f"--dashboard-agent-listen-port={free_port()}",  # takes jobs; another Ray of the tests may have the usual port
        *options,
        program=(RAY,),
        **environment,
    )
    head.wait_for("This command will now block")
    yield Head(psutil.Process(head.process.pid), f"127.0.0.1:{gcs_port}")
    head.note_processes()
    head.process.send_signal(signal.SIGTERM)
    head.finish(30.0)
    assert head.survivors() == []
    subprocess.run(["rm", "-rf", str(temp_dir)], check=True)


def submit(job: tuple[str, ...], start_command: StartCommand, environment: dict[str, str]) -> Command:
    """Submit a job; again while Ray says that its agent, which starts after the head, is not there yet."""
    deadline = time.monotonic() + 120.0
    while True:
        command = start_command("job", "submit", *job, program=(RAY,), **environment)
        while "submitted successfully" not in command.output and command.process.poll() is None:
            command.note_processes()
            time.sleep(0.2)
        if "No available agent to submit job" not in command.output or time.monotonic() > deadline:
            return command


def actors_of(head: Head) -> list[str]:
    """Titles of the processes below the head that belong to a run."""
    titles = []
    for child in head.process.children(recursive=True):
        with suppress(psutil.Error):  # it has ended meanwhile
            titles.append(" ".join(child.cmdline()))
    wanted = ("RolloutWorker", "LearnerWorker", "RewardWorker", "ControllerActor", "VLLM", "cluster.cli")
    return [title for title in titles if any(name in title for name in wanted)]


def test_a_job_trains_and_another_goes_on_in_a_full_object_store_and_leaves_nothing_when_it_is_stopped(
    tmp_path: Path,
    start_command: StartCommand,
    write_config: WriteConfig,
    cluster_environment: dict[str, str],
    ray_head: Head,
) -> None:
    config = write_config(cluster={"num_cpus": None, "object_store_mib": 128}, training={"num_steps": 2})
    here = ("--working-dir", str(REPOSITORY))
    train = ("--", "python", "-m", "cluster.cli", "train", str(config))
    job = submit((*here, *train), start_command, cluster_environment)
    assert job.finish() == 0, job.output
    assert "step 2/2" in job.output
    assert "succeeded" in job.output
    assert len(read_metrics(tmp_path / "runs" / "run")) == 2
    assert actors_of(ray_head) == []

    endless = (*train, "--set", "training.num_steps=100000", "--set", "name=endless")
    job = submit((*here, "--submission-id", "endless", *endless), start_command, cluster_environment)
    job.wait_for("step 2/")
    assert actors_of(ray_head)
    holder = start_command("-c", HOLD_OBJECTS, ray_head.address, program=(sys.executable,), **cluster_environment)
    holder.wait_for("Plasma filesystem mmap usage")  # which is there when shared memory was not enough
    num_steps = len(read_metrics(tmp_path / "runs" / "endless"))
    job.wait_for(f"step {num_steps + 4}/")
    assert holder.process.poll() is None  # it has held its objects all the time
    stop = start_command("job", "stop", "endless", program=(RAY,), **cluster_environment)
    assert stop.finish(60.0) == 0, stop.output
    deadline = time.monotonic() + 60.0
    while left := actors_of(ray_head):
        assert time.monotonic() < deadline, left
        time.sleep(0.5)
    holder.process.terminate()
    holder.finish(30.0)
    assert start_command("ledger", str(tmp_path / "runs" / "endless")).finish() == 0
