"""A disk that fills during a save, on a real file system of a few megabytes."""

from __future__ import annotations

import errno
import pickle
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from learner.checkpoint.load import load_checkpoint
from learner.checkpoint.snapshot import take_snapshot
from learner.config import ModelConfig
from learner.storage.files import CheckpointFiles
from learner.storage.manifest import DiskFullError, begin, commit, find_newest_complete, telling_full_disk, verify
from learner.update.learner import Learner
from rollout.component import UserError
from tests.learner.plain_learner import random_samples, save_checkpoint

SIZE = 6 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 6 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], capture_output=True, text=True, timeout=30
    )
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True, timeout=30)


def fill(folder: Path, leave: int) -> Path:
    """Take all but about ``leave`` bytes."""
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(folder).free - leave))
    return ballast


WRITERS: dict[str, Callable[[CheckpointFiles], None]] = {
    "torch": lambda files: files.torch_save("a/big.pt", {"x": torch.ones(1 << 20), "y": [torch.ones(9), "text"]}),
    "text": lambda files: files.text("a/big.txt", "x" * (4 << 20)),
    "copy": lambda files: files.copy("a/copy", Path(__file__).parents[1] / "maths" / "quantiles" / "test_quantiles.py"),
    "safetensors": lambda files: write_safetensors(files),
}


def write_safetensors(files: CheckpointFiles) -> None:
    with files.subfolder("b") as folder:
        save_file({"x": torch.ones(1 << 20)}, folder / "model.safetensors")


@pytest.mark.parametrize("kind", WRITERS)
def test_every_way_of_writing_tells_a_full_disk(kind: str, small_disk: Path) -> None:
    ballast = fill(small_disk, 8192)
    with pytest.raises(
        DiskFullError, match=r"no space for the checkpoint .*/disk/part: .*No space left on device"
    ) as caught:
        WRITERS[kind](CheckpointFiles(small_disk / "part"))
    assert caught.value.errno == errno.ENOSPC
    shutil.rmtree(small_disk / "part")
    ballast.unlink()
    files = CheckpointFiles(small_disk / "part")
    WRITERS[kind](files)
    assert [(small_disk / "part" / name).stat().st_size for name in files.facts] == [
        entry["bytes"] for entry in files.facts.values()
    ]


def test_the_older_checkpoint_stays_and_the_retry_works(
    small_disk: Path, tiny_model: Path, make_learner: Callable[..., Learner]
) -> None:
    learner = make_learner("ppo")
    learner.update(random_samples(8), 0)
    save_checkpoint(learner, small_disk / "step-1", tiny_model)
    size = SIZE - shutil.disk_usage(small_disk).free
    learner.update(random_samples(8, 1), 1)
    snapshot = take_snapshot(learner, ModelConfig(path=str(tiny_model)), {})
    assert 0.9 * size < snapshot.facts.num_bytes <= size
    # known before anything is written
    ballast = fill(small_disk, size // 2)
    with pytest.raises(DiskFullError, match=r"step-2: it needs [\d.]+ MiB, [\d.]+ MiB are free") as caught:
        begin(small_disk / "step-2", snapshot.facts.num_bytes)
    assert caught.value.needed == snapshot.facts.num_bytes
    # found out while writing, as where there is a quota, or somebody else writes too
    partial = begin(small_disk / "step-2", 0)
    with pytest.raises(DiskFullError):
        snapshot.write(partial)
    shutil.rmtree(partial)
    assert sorted(p.name for p in small_disk.iterdir()) == ["ballast", "step-1"]
    assert find_newest_complete(small_disk) == (small_disk / "step-1", [])
    # the same copy is written once there is space
    ballast.unlink()
    partial = begin(small_disk / "step-2", snapshot.facts.num_bytes)
    commit(partial, small_disk / "step-2", {"step": 2, "num_ranks": 1, "zero_stage": 2}, snapshot.write(partial))
    verify(small_disk / "step-1")
    resumed = make_learner("ppo")
    load_checkpoint(resumed, small_disk / "step-2")
    metrics = [x.update(random_samples(8, 2), 2).metrics for x in (learner, resumed)]
    assert metrics[0] == metrics[1]


def test_full_during_the_commit(small_disk: Path) -> None:
    partial = begin(small_disk / "step-1", 0)
    files = CheckpointFiles(partial)
    for number in range(40):  # a manifest of more than one page
        files.text(f"file-{number}", "x")
    fill(small_disk, 0)
    with pytest.raises(DiskFullError, match="step-1"):
        commit(partial, small_disk / "step-1", {"step": 1}, files.facts)
    assert not (small_disk / "step-1").exists()


@pytest.mark.parametrize(
    ("error", "is_full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EIO, "Input/output error"), False),
        (RuntimeError("I/O error: Disk quota exceeded (os error 122)"), True),
        (RuntimeError("I/O error: Input/output error (os error 5)"), False),
        (OSError("without a number"), False),
    ],
)
def test_which_errors_say_that_the_disk_is_full(error: Exception, is_full: bool) -> None:
    with pytest.raises(DiskFullError if is_full else type(error)) as caught, telling_full_disk(Path("/c/step-1"), 7):
        raise error
    assert isinstance(caught.value, DiskFullError) == is_full


def test_the_error_keeps_its_facts_on_its_way_between_processes() -> None:
    error = DiskFullError("/c/step-1", "it needs 2.0 MiB, 1.0 MiB are free", 2 << 20)
    sent = pickle.loads(pickle.dumps(error))
    assert (sent.path, sent.needed, sent.errno, str(sent)) == (error.path, 2 << 20, errno.ENOSPC, str(error))
    assert str(error) == "no space for the checkpoint /c/step-1: it needs 2.0 MiB, 1.0 MiB are free [disk-full]"
    assert isinstance(sent, UserError) and isinstance(sent, OSError)
