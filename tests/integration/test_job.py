"""The promised entry on a cluster: ``ray job submit --working-dir . -- python -m cluster.cli train CONFIG``."""

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
from pathlib import Path

import psutil
import pytest

from tests.integration.whole_runs import REPOSITORY, Command, StartCommand, WriteConfig, read_metrics

pytestmark = pytest.mark.slow

RAY = str(Path(sys.executable).parent / "ray")


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
def ray_head(cluster_environment: dict[str, str], start_command: StartCommand) -> Iterator[psutil.Process]:
    """``ray start --head`` with a dashboard, in the foreground so that it can be ended by its process id."""
    port = cluster_environment["RAY_ADDRESS"].rsplit(":", 1)[1]
    environment = {key: value for key, value in cluster_environment.items() if key != "RAY_ADDRESS"}
    temp_dir = Path("/tmp") / f"dvpo-{os.getpid()}"  # short: Ray puts sockets below it
    options = ["--block", "--num-cpus=4", "--object-store-memory=200000000", f"--temp-dir={temp_dir}"]
    head = start_command(
        "start",
        "--head",
        f"--port={free_port()}",
        f"--dashboard-port={port}",
        f"--dashboard-agent-listen-port={free_port()}",  # takes jobs; another Ray of the tests may have the usual port
        *options,
        program=(RAY,),
        **environment,
    )
    head.wait_for("This command will now block")
    yield psutil.Process(head.process.pid)
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


def actors_of(head: psutil.Process) -> list[str]:
    """Titles of the processes below the head that belong to a run."""
    titles = []
    for child in head.children(recursive=True):
        with suppress(psutil.Error):  # it has ended meanwhile
            titles.append(" ".join(child.cmdline()))
    wanted = ("RolloutWorker", "LearnerWorker", "RewardService", "ControllerActor", "VLLM", "cluster.cli")
    return [title for title in titles if any(name in title for name in wanted)]


def test_a_submitted_job_trains_and_a_stopped_one_leaves_nothing(
    tmp_path: Path,
    start_command: StartCommand,
    write_config: WriteConfig,
    cluster_environment: dict[str, str],
    ray_head: psutil.Process,
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
    stop = start_command("job", "stop", "endless", program=(RAY,), **cluster_environment)
    assert stop.finish(60.0) == 0, stop.output
    deadline = time.monotonic() + 60.0
    while left := actors_of(ray_head):
        assert time.monotonic() < deadline, left
        time.sleep(0.5)
