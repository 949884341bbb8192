"""Checkpoints that would run code when they are read: refused without running any of it."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.run.resume import find_resume_point
from learner.checkpoint.load import load_checkpoint
from learner.checkpoint.safety import refuse_code
from learner.storage.files import CheckpointFiles
from learner.storage.manifest import CheckpointError, begin, commit
from learner.update.learner import Learner

STATE = "state/policy/state/mp_rank_00_model_states.pt"


class Payload:
    """Whoever reads it makes a folder."""

    def __init__(self, mark: Path, function: Callable[..., Any] = os.mkdir) -> None:
        self.mark, self.function = str(mark), function

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return self.function, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "code-has-run"


KINDS: dict[str, Callable[[Path, Path], object]] = {
    "a function": lambda mark, path: torch.save({"module": Payload(mark)}, path),
    "eval": lambda mark, path: torch.save({"module": Payload(mark, eval)}, path),
    "deep inside": lambda mark, path: torch.save([{"a": (torch.ones(2), {"b": Payload(mark)})}], path),
    "another protocol": lambda mark, path: torch.save(Payload(mark), path, pickle_protocol=4),
    "the old format": lambda mark, path: torch.save(Payload(mark), path, _use_new_zipfile_serialization=False),
    "a plain pickle": lambda mark, path: path.write_bytes(pickle.dumps(Payload(mark))),
    "no pickle": lambda mark, path: path.write_bytes(b"what is this"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_would_run_code_is_refused_and_does_not_run(kind: str, tmp_path: Path, mark: Path) -> None:
    folder = tmp_path / "step-3"
    (folder / STATE).parent.mkdir(parents=True)
    KINDS[kind](mark, folder / STATE)
    with pytest.raises(CheckpointError, match=r"mp_rank_00_model_states\.pt"):
        refuse_code(folder)
    assert not mark.exists()


def test_the_function_is_named(tmp_path: Path, mark: Path) -> None:
    (tmp_path / STATE).parent.mkdir(parents=True)
    KINDS["a function"](mark, tmp_path / STATE)
    with pytest.raises(CheckpointError, match=r"would call posix\.mkdir"):
        refuse_code(tmp_path)


def test_plain_values_and_tensors_pass(tmp_path: Path) -> None:
    (tmp_path / STATE).parent.mkdir(parents=True)
    torch.save({"tensor": torch.ones(3), "values": [1, 2.0, "x", None, (True,)]}, tmp_path / STATE)
    refuse_code(tmp_path)


@pytest.mark.parametrize("resume", ["auto", "its path"])
def test_a_poisoned_checkpoint_that_is_whole_is_refused_before_anything_starts_and_by_the_learner(
    resume: str, tmp_path: Path, mark: Path, make_learner: Callable[..., Learner]
) -> None:
    final = tmp_path / "run" / "checkpoints" / "step-3"
    partial = begin(final, 0)
    files = CheckpointFiles(partial)
    files.torch_save("state/rank-0.pt", {"algorithm": Payload(mark)})
    commit(partial, final, {"step": 3, "num_ranks": 1, "zero_stage": 0}, files.facts)
    with pytest.raises(CheckpointError, match="reading it would call"):
        find_resume_point(tmp_path / "run", resume if resume == "auto" else str(final))
    with pytest.raises(CheckpointError, match="reading it would call"):
        load_checkpoint(make_learner("dvpo"), final)
    assert not mark.exists()
