"""A whole run whose disk fills while it goes on. One in a full object store is in test_job.py."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from actors.recording.event_log import read_events
from benchmarks.faults.live_run import LiveRun, write_small_config
from learner.storage.manifest import verify
from tests.actors.recording.event_files import points
from tests.integration.whole_runs import read_metrics
from tests.small_disk import fill, small_disk

pytestmark = pytest.mark.slow

NUM_STEPS = 25
PATIENCE_S = 12.0
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
