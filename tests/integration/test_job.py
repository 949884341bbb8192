"""Runs as jobs of a cluster: ``dvpo submit``, ``jobs``, ``status``, ``stop``, and plain ``ray job submit``.

Others may fill the cluster's object store: Ray then gives what finds no place in shared memory a file on the disk, and
the run is slower.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from actors.meters import metric_name
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
    metrics_port: int


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
    metrics_port = free_port()
    options += ["--node-ip-address=127.0.0.1", f"--metrics-export-port={metrics_port}"]
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
    yield Head(psutil.Process(head.process.pid), f"127.0.0.1:{gcs_port}", metrics_port)
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


class Dvpo:
    """``dvpo COMMAND`` on the cluster."""

    def __init__(self, start_command: StartCommand, environment: dict[str, str]) -> None:
        self._start, self._environment = start_command, environment

    def start(self, *words: str, **environment: str) -> Command:
        return self._start(*words, **{**self._environment, **environment})

    def __call__(self, *words: str, status: int = 0, **environment: str) -> str:
        command = self.start(*words, **environment)
        assert command.finish(120.0) == status, command.output
        return command.output


def actors_of(head: Head) -> list[str]:
    """Titles of the processes below the head that belong to a run."""
    titles = []
    for child in head.process.children(recursive=True):
        with suppress(psutil.Error):  # it has ended meanwhile
            titles.append(" ".join(child.cmdline()))
    wanted = ("RolloutWorker", "LearnerWorker", "RewardWorker", "ControllerActor", "VLLM", "cluster.cli")
    return [title for title in titles if any(name in title for name in wanted)]


SCALE = """
from cluster.api.jobs import Jobs
Jobs().run(["scale", {folder!r}, "--rollouts", "2"])  # as dvpo scale does where the folder is not seen from here
"""
MY_REWARD = """
def right(prompt, trajectory):
    return float(trajectory.response_text.strip() == prompt.reference)
"""


def test_a_job_trains_and_another_goes_on_in_a_full_object_store_and_leaves_nothing_when_it_is_stopped(
    tmp_path: Path,
    start_command: StartCommand,
    write_config: WriteConfig,
    cluster_environment: dict[str, str],
    ray_head: Head,
) -> None:
    dvpo = Dvpo(start_command, cluster_environment)
    (tmp_path / "my_reward.py").write_text(MY_REWARD)  # beside the configuration, in the folder that is shipped
    mine = {"functions": [{"type": "my_reward:right"}]}
    write_config(cluster={"num_cpus": None, "object_store_mib": 128}, training={"num_steps": 2}, reward=mine)
    job = dvpo.start("submit", "run.yaml", "--follow")
    assert job.finish() == 0, job.output
    assert "step 2/2" in job.output
    assert "succeeded" in job.output
    assert len(read_metrics(tmp_path / "runs" / "run")) == 2
    assert actors_of(ray_head) == []
    failed_jobs_say_why(tmp_path, dvpo, start_command, cluster_environment)

    endless = ("--set", "training.num_steps=100000", "--set", "name=endless")
    job = dvpo.start("submit", "run.yaml", "--follow", *endless)
    job.wait_for("step 2/")
    assert actors_of(ray_head)
    holder = start_command("-c", HOLD_OBJECTS, ray_head.address, program=(sys.executable,), **cluster_environment)
    holder.wait_for("Plasma filesystem mmap usage")  # which is there when shared memory was not enough
    num_steps = len(read_metrics(tmp_path / "runs" / "endless"))
    job.wait_for(f"step {num_steps + 4}/")
    assert holder.process.poll() is None  # it has held its objects all the time
    assert_prometheus_finds_every_metric(tmp_path, start_command, ray_head.metrics_port)
    shown = dvpo("status", "endless", "--address", cluster_environment["RAY_ADDRESS"])
    for word in ("running", "step", "now", "told", "tokens a second", "observed score"):
        assert word in shown
    script = SCALE.format(folder=str(tmp_path / "runs" / "endless"))
    scaled = start_command("-c", script, program=(sys.executable,), **cluster_environment)
    assert scaled.finish(120.0) == 0, scaled.output
    job.wait_for("rollout-1 has joined")
    assert dvpo("jobs").count("endless") >= 2  # in the job's name and the run's
    assert "stopped" in dvpo("stop", "endless")
    assert job.finish(60.0) == 143, job.output
    last = read_metrics(tmp_path / "runs" / "endless")[-1]["step"]
    assert (tmp_path / "runs" / "endless" / "checkpoints" / f"step-{last}" / "manifest.json").is_file()
    deadline = time.monotonic() + 60.0
    while left := actors_of(ray_head):
        assert time.monotonic() < deadline, left
        time.sleep(0.5)
    holder.process.terminate()
    holder.finish(30.0)
    assert start_command("ledger", str(tmp_path / "runs" / "endless")).finish() == 0


def failed_jobs_say_why(tmp_path: Path, dvpo: Dvpo, start_command: StartCommand, environment: dict[str, str]) -> None:
    """A run's folder that is taken is seen by the job only; the same by Ray's own command; a wrong token, at once."""
    again = dvpo("submit", "run.yaml", "--follow", status=2)
    assert "already holds a run" in again
    assert "failed (exit status 2)" in again
    assert "failed" in dvpo("status", "run", "--address", environment["RAY_ADDRESS"], status=1)
    plain = ("--working-dir", str(REPOSITORY), "--", "python", "-m", "cluster.cli", "train", str(tmp_path / "run.yaml"))
    job = submit(plain, start_command, environment)
    assert job.finish() != 0
    assert "already holds a run" in job.output
    assert "is not in" in dvpo("submit", "run.yaml", "--working-dir", str(REPOSITORY / "docs"), status=2)
    begin = time.monotonic()
    refused = dvpo("jobs", status=2, RAY_AUTH_TOKEN="0" * 64)
    assert "the cluster refuses this token" in refused and refused.count("\n") == 1
    assert time.monotonic() - begin < 30.0


def assert_prometheus_finds_every_metric(tmp_path: Path, start_command: StartCommand, metrics_port: int) -> None:
    """A real Prometheus scrapes the node until it has all that the run has written and docs/monitoring.md lists."""
    if shutil.which("prometheus") is None:
        return  # the test of the jobs goes on; test_monitoring.py says what is missing
    port = free_port()
    config = tmp_path / "prometheus.yaml"
    target = f"static_configs: [{{targets: ['127.0.0.1:{metrics_port}']}}]"
    config.write_text(f"scrape_configs: [{{job_name: ray, scrape_interval: 1s, scrape_timeout: 1s, {target}}}]\n")
    options = (f"--storage.tsdb.path={tmp_path / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}")
    server = start_command(f"--config.file={config}", *options, program=("prometheus",))
    written = {key for line in read_metrics(tmp_path / "runs" / "endless") for key in line} - {"step", "time"}
    table = re.findall(r"^\| `(dvpo_[a-z_]+)` \|", (REPOSITORY / "docs" / "monitoring.md").read_text(), re.MULTILINE)
    wanted = {f"ray_{metric_name(key)}" for key in written} | {f"ray_{name}" for name in table}
    deadline = time.monotonic() + 120.0
    while missing := wanted - scraped_names(port):
        assert server.process.poll() is None, server.output
        assert time.monotonic() < deadline, sorted(missing)
        time.sleep(1.0)
    server.process.terminate()
    server.finish(30.0)


def scraped_names(port: int) -> set[str]:
    """Names that Prometheus has, histograms and counters by the name that they were given."""
    query = f"http://127.0.0.1:{port}/api/v1/label/__name__/values"
    try:
        with urllib.request.urlopen(query, timeout=10.0) as answer:
            names = json.load(answer)["data"]
    except OSError:
        return set()
    return {re.sub("_(bucket|total)$", "", name) for name in names}
