"""A whole run whose disk fills while it goes on, and one in an object store that others have filled."""

from __future__ import annotations

import json
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from actors.recording.event_log import read_events
from benchmarks.faults.live_run import LiveRun, write_small_config
from learner.storage.manifest import verify
from tests.actors.recording.event_files import points
from tests.integration.test_job import RAY, free_port
from tests.integration.whole_runs import StartCommand, WriteConfig, read_metrics
from tests.small_disk import fill, small_disk

pytestmark = pytest.mark.slow

NUM_STEPS = 35
PATIENCE_S = 20.0
"""How long the run waits for space; the test gives it back after a few seconds without a step."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 32 << 20) as folder:
        yield folder


def full_disk_run(tmp_path: Path, disk: Path, model: Path) -> LiveRun:
    """A run that writes everything it can to the small disk."""
    config = write_small_config(
        tmp_path,
        model,
        "full",
        training={"num_steps": NUM_STEPS, "checkpoint_every_steps": 5, "keep_checkpoints": 2},
        recovery={"disk_full_timeout_s": PATIENCE_S},
        logging={"tensorboard": True},
    )
    settings = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**settings, "output_dir": str(disk)}))
    return LiveRun(config)


def num_printed(run: LiveRun, text: str) -> int:
    return run.log.read_text(errors="replace").count(text)


def check_that_nothing_is_missing(run: LiveRun) -> None:
    """Ledger, metrics, curves, trajectories and checkpoints of a run that has ended in order."""
    account = run.ledger()
    assert (account["num_lost"], account["num_trained_twice"]) == (0, 0)
    steps = list(range(1, NUM_STEPS + 1))
    assert [line["step"] for line in read_metrics(run.folder)] == steps
    curve = {s for file in (run.folder / "tensorboard").iterdir() for s, key, _ in points(file) if key == "time/step_s"}
    assert sorted(curve) == steps
    for step in steps:
        lines = (run.folder / "trajectories" / f"step-{step}.jsonl").read_text().splitlines()
        assert [len(json.loads(line)["policy_versions"]) for line in lines] == [2] * 4
    checkpoints = sorted((run.folder / "checkpoints").iterdir())
    assert [path.name for path in checkpoints] == [f"step-{NUM_STEPS - 5}", f"step-{NUM_STEPS}"]
    for path in checkpoints:
        verify(path)
    assert list(run.folder.rglob("*partial*")) + list(run.folder.glob(".*")) == []


def wait_until_paused(run: LiveRun, filler: Path) -> None:
    """Keep the disk full to the last page until no step was printed for 3 s."""
    shown, since = -1, 0.0
    deadline = time.monotonic() + 60.0
    while shown < 0 or time.monotonic() - since < 3.0:
        assert time.monotonic() < deadline, run.failure("the run goes on with a full disk")
        fill(filler)  # also what is given back when a checkpoint that did not fit is removed
        if (now_shown := num_printed(run, f"/{NUM_STEPS}")) != shown:
            shown, since = now_shown, time.monotonic()
        time.sleep(0.05)


def test_a_run_waits_for_space_and_ends_when_none_comes_and_can_go_on_later(
    tmp_path: Path, disk: Path, tiny_model: Path
) -> None:
    run = full_disk_run(tmp_path, disk, tiny_model)
    try:
        run.start()
        run.wait_until(lambda: run.steps() >= 6, "past step 6", 300.0)
        fill_for_a_while(run, disk / "filler")
        fill_until_it_ends(run, disk / "filler")
        hashes = checkpoint_hashes(run)
        assert hashes

        run.start(resume=True)  # too early
        assert run.finish(60.0) == 2
        assert num_printed(run, f"are free in {disk}; make space or choose another folder") == 1, run.failure("")
        assert checkpoint_hashes(run) == hashes

        (disk / "filler").unlink()
        run.start(resume=True)
        assert run.finish(240.0) == 0, run.failure("not completed after --resume")
        assert run.survivors() == []
    finally:
        run.end()
    texts = [event["text"] for event in read_events(run.folder / "events.jsonl") if event["kind"] == "disk"]
    assert "the disk is full" in texts[0]
    assert any("there is space again" in text for text in texts)
    check_that_nothing_is_missing(run)


def fill_for_a_while(run: LiveRun, filler: Path) -> None:
    """Fill the disk, and give it back when the run waits; it has to go on."""
    fill(filler)
    run.wait_until(lambda: num_printed(run, "the disk is full") > 0, "told of the full disk", 60.0)
    wait_until_paused(run, filler)
    filler.unlink()
    run.wait_until(lambda: num_printed(run, "there is space again") > 0, "told of the space", PATIENCE_S)
    before = run.steps()
    run.wait_until(lambda: run.steps() >= before + 2, "two steps further", 60.0)


def fill_until_it_ends(run: LiveRun, filler: Path) -> None:
    """Fill the disk and keep it full: the run has to end by itself, with one clear message."""
    fill(filler)
    while run.process is not None and run.process.poll() is None:
        fill(filler)
        run.note_processes()
        time.sleep(0.05)
    assert run.finish(1.0) == 1, run.failure("not ended with an error")
    assert run.survivors() == []
    assert num_printed(run, f"the disk has been full for {PATIENCE_S:g} s (recovery.disk_full_timeout_s)") == 1
    assert num_printed(run, "Traceback") == 0


def checkpoint_hashes(run: LiveRun) -> dict[str, dict[str, str]]:
    """Of every file of every checkpoint; each checkpoint must be complete."""
    folders = [path for path in (run.folder / "checkpoints").iterdir() if path.name.startswith("step-")]
    return {path.name: {name: facts["sha256"] for name, facts in verify(path)["files"].items()} for path in folders}


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


@pytest.fixture
def cluster_environment() -> dict[str, str]:
    """Lets a command join the cluster of this test and no other."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


@pytest.fixture
def small_cluster(start_command: StartCommand, cluster_environment: dict[str, str]) -> Iterator[str]:
    """Address of a cluster whose object store has 100 MB, in the foreground so that it can be ended by its id."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="dvpo-", dir="/tmp", ignore_cleanup_errors=True) as temp_dir:
        options = ["--block", "--num-cpus=4", "--object-store-memory=100000000", f"--temp-dir={temp_dir}"]
        options += [f"--port={port}", "--node-ip-address=127.0.0.1", "--include-dashboard=false"]
        head = start_command("start", "--head", *options, program=(RAY,), **cluster_environment)
        head.wait_for("This command will now block")
        yield f"127.0.0.1:{port}"
        head.note_processes()
        head.process.send_signal(signal.SIGTERM)
        head.finish(30.0)
        assert head.survivors() == []


def test_a_run_goes_on_in_a_full_object_store(
    tmp_path: Path,
    start_command: StartCommand,
    write_config: WriteConfig,
    cluster_environment: dict[str, str],
    small_cluster: str,
) -> None:
    """Ray gives what finds no place in shared memory a file on the disk instead: the run is slower and completes."""
    training = {"num_steps": 8, "checkpoint_every_steps": 4}
    config = write_config(cluster={"address": small_cluster, "num_cpus": None}, training=training)
    run = start_command("train", str(config), **cluster_environment)
    run.wait_for("step 1/8")
    holder = start_command("-c", HOLD_OBJECTS, small_cluster, program=(sys.executable,), **cluster_environment)
    holder.wait_for("Plasma filesystem mmap usage")  # which is there when shared memory was not enough
    before = run.output.count("/8 ")
    assert run.finish(240.0) == 0, run.output
    assert holder.process.poll() is None  # it has held its objects all the time
    holder.process.terminate()
    holder.finish(30.0)
    assert before < 8
    assert run.survivors() == []
    assert [line["step"] for line in read_metrics(tmp_path / "runs" / "run")] == list(range(1, 9))
    assert start_command("ledger", str(tmp_path / "runs" / "run")).finish() == 0
