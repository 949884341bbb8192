"""Killed at every operation of a save, pruning, going back: what is left, and what the next start makes of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from learner.storage.files import CheckpointFiles
from learner.storage.folders import prune, set_aside_newer, sweep
from learner.storage.manifest import MANIFEST, CheckpointError, begin, commit, find_newest_complete, verify


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@contextmanager
def killed_at(operation: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Everything on disk stays as it is when the n-th operation on files is about to happen (from 0)."""
    done: list[str] = []

    def stop_before(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def counted(*arguments: object, **options: object) -> object:
            if len(done) >= operation:
                raise Killed
            done.append(f"{name} {arguments[0] if arguments else ''}")
            return real(*arguments, **options)

        context.setattr(owner, name, counted)

    with monkeypatch.context() as context:
        for owner, names in ((Path, ("rename", "mkdir", "write_text")), (os, ("fsync",)), (shutil, ("rmtree",))):
            for name in names:
                stop_before(owner, name)
        try:
            yield done
        except Killed:
            done.append("killed")


def save(checkpoints: Path, step: int, content: str) -> None:
    partial = begin(checkpoints / f"step-{step}", 0)
    files = CheckpointFiles(partial)
    files.text("state/content", content)
    commit(partial, checkpoints / f"step-{step}", {"step": step}, files.facts)


@pytest.mark.parametrize("replaces", [False, True])
def test_killed_at_every_operation(replaces: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    for operation in range(100):
        checkpoints = tmp_path / str(operation)
        save(checkpoints, 1, "first")
        if replaces:
            save(checkpoints, 2, "old")
        with killed_at(operation, monkeypatch) as done:
            save(checkpoints, 2, "new")
            prune(checkpoints, 1)
        removed = sweep(checkpoints)
        assert not [p.name for p in checkpoints.iterdir() if not p.name.startswith("step-")]
        assert all(path.name.startswith(".step-") for path in removed)
        newest, skipped = find_newest_complete(checkpoints)
        assert skipped == [] and newest is not None
        content = (newest / "state" / "content").read_text()
        assert (newest.name, content) in [("step-2", "new"), ("step-2", "old") if replaces else ("step-1", "first")]
        seen.add(content)
        if "killed" not in done:
            break
    else:
        pytest.fail("the save never came to its end")
    assert operation > 10
    assert seen == {"new", "old" if replaces else "first"}
    assert sorted(p.name for p in checkpoints.iterdir()) == ["step-2"]


def test_killed_between_the_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no step-2 for a moment; the new one, durable already, is put in its place."""
    save(tmp_path, 2, "old")
    with monkeypatch.context() as context:

        def only_once(self: Path, target: Path) -> Path:
            if self.name.endswith(".partial"):
                raise Killed
            os.rename(self, target)
            return Path(target)

        context.setattr(Path, "rename", only_once)
        with pytest.raises(Killed):
            save(tmp_path, 2, "new")
    assert find_newest_complete(tmp_path) == (None, [])
    assert [path.name for path in sweep(tmp_path)] == [".step-2.replaced"]
    assert (tmp_path / "step-2" / "state" / "content").read_text() == "new"
    # the same with a new one that is not whole: the old one comes back
    (tmp_path / "step-2").rename(tmp_path / ".step-2.replaced")
    partial = begin(tmp_path / "step-2", 0)
    (partial / MANIFEST).write_text("{")
    assert sweep(tmp_path) == [partial]
    assert verify(tmp_path / "step-2")["step"] == 2


def test_a_rename_that_fails_leaves_the_old_one_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 2, "old")
    with monkeypatch.context() as context:

        def refuse(self: Path, target: Path) -> Path:
            if self.name.endswith(".partial"):
                raise PermissionError(13, "no")
            os.rename(self, target)
            return Path(target)

        context.setattr(Path, "rename", refuse)
        with pytest.raises(PermissionError):
            save(tmp_path, 2, "new")
    assert (tmp_path / "step-2" / "state" / "content").read_text() == "old"
    verify(tmp_path / "step-2")


def test_only_left_overs_are_swept(tmp_path: Path) -> None:
    assert sweep(tmp_path / "none") == []
    save(tmp_path, 4, "x")
    names = [".step-4.partial", ".step-4.0123abcd.partial", ".step-4.resharded", ".step-9.pruned", ".step-4.replaced"]
    for name in names:
        (tmp_path / name / "state").mkdir(parents=True)
    for name in ("step-5", "step-3.undone", ".step-4", ".cache", "notes.partial"):
        (tmp_path / name).mkdir()
    assert [path.name for path in sweep(tmp_path)] == sorted(names)
    kept = ["step-5", "step-3.undone", ".step-4", ".cache", "notes.partial", "step-4"]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)


def test_a_file_that_the_committing_process_does_not_see(tmp_path: Path) -> None:
    partial = begin(tmp_path / "step-1", 0)
    files = CheckpointFiles(partial)
    files.text("state/rank-1.pt", "x" * 10)
    (partial / "state" / "rank-1.pt").unlink()
    with pytest.raises(
        CheckpointError, match=r"rank-1\.pt is missing; are the checkpoints on storage that all learner"
    ):
        commit(partial, tmp_path / "step-1", {"step": 1}, files.facts)
    assert not (tmp_path / "step-1").exists()


def test_going_back_sets_newer_ones_aside(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        save(tmp_path, step, str(step))
    assert [path.name for path in set_aside_newer(tmp_path, 10)] == ["step-20.undone", "step-15.undone"]
    save(tmp_path, 15, "other")
    assert [path.name for path in prune(tmp_path, 2)] == ["step-5"]
    assert find_newest_complete(tmp_path) == (tmp_path / "step-15", [])
    assert [path.name for path in set_aside_newer(tmp_path, 10)] == ["step-15.undone"]
    assert (tmp_path / "step-15.undone" / "state" / "content").read_text() == "other"
