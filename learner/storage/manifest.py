"""Folders that are either complete or not there: written aside, described by a manifest, renamed into place.

``folders.py`` clears up what killed processes leave.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from learner.storage.disk_full import is_disk_full
from rollout.component import UserError
from rollout.component.errors import coded
from rollout.component.mistakes import DiskIsFull, NoCheckpoint

MANIFEST = "manifest.json"
FORMAT = 1
_STEP = re.compile(r"step-(\d+)")
Guard = Callable[[], AbstractContextManager[None]]
"""Makes a block inside of which nobody else changes the folder of checkpoints; raises if this process may not."""


class CheckpointError(UserError):
    """A checkpoint is incomplete, damaged, or does not fit what is to go on from it. Take another one."""

    code = "checkpoint-unfit"


class CheckpointMissing(NoCheckpoint, CheckpointError):
    """There is no folder of this name."""


class DiskFullError(DiskIsFull, OSError):
    """There is no space for a checkpoint. Nothing of it is left behind, and those that were there are as they were.

    Attributes:
        path: what was to be written.
        needed: its size in bytes, where known.
        errno: ENOSPC, as of any ``OSError`` that says so.
    """

    def __init__(self, path: str, reason: str, needed: int | None = None) -> None:
        super().__init__(path, reason, needed)
        self.path, self.reason, self.needed = path, reason, needed
        self.errno = errno.ENOSPC

    def __str__(self) -> str:
        return coded(f"no space for the checkpoint {self.path}: {self.reason}", self.code)


class FileFacts(TypedDict):
    """What the manifest says of a file."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """What is known of a checkpoint before it is written.

    Attributes:
        num_bytes: of the tensors that this rank will write; headers and the tokenizer come on top.
        num_ranks: that write it.
        zero_stage: of the optimiser's state.
    """

    num_bytes: int
    num_ranks: int
    zero_stage: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A checkpoint folder that was passed over, and why."""

    path: Path
    reason: str


@contextmanager
def telling_full_disk(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turn an error that says that the disk or the quota is full into :class:`DiskFullError`; let others through."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if not is_disk_full(error):
            raise
        raise DiskFullError(str(path), str(error), needed) from error


def begin(final: Path, num_bytes: int) -> Path:
    """A fresh, empty folder beside ``final`` to write into.

    Args:
        num_bytes: that will be written. A disk that is filled to the brim also stops logs, metrics and the ledger.

    Raises:
        DiskFullError: there are fewer bytes free.
    """
    with telling_full_disk(final, num_bytes):
        final.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(final.parent).free
        if free < num_bytes:
            reason = f"it needs {_mib(num_bytes)}, {_mib(free)} are free"
            raise DiskFullError(str(final), reason, num_bytes)
        partial = final.parent / f".{final.name}.{secrets.token_hex(4)}.partial"
        partial.mkdir()
    return partial


def commit(
    partial: Path,
    final: Path,
    facts: Mapping[str, Any],
    files: Mapping[str, FileFacts],
    guard: Guard = nullcontext,
) -> None:
    """Describe ``partial`` in a manifest, make it durable, and rename it to ``final``.

    A folder that was at ``final`` before is replaced. Until the rename, ``final`` is as it was; for a moment within it
    there is none, which :func:`learner.storage.folders.sweep` puts right if the process is killed just then.

    Args:
        facts: what else the manifest says; must be JSON.
        files: size and hash of every file by its path within ``partial``; the files themselves are durable already.
        guard: the rename happens inside of it; what it raises on the way in leaves ``final`` as it was.

    Raises:
        CheckpointError: a file is not there, or has another size.
        DiskFullError: see there. ``partial`` is the caller's to remove.
    """
    for name, entry in files.items():
        _check_size(partial, name, entry, "; are the checkpoints on storage that all learner ranks see?")
    manifest = partial / MANIFEST
    with telling_full_disk(final):
        text = json.dumps({"format": FORMAT, **facts, "files": dict(files)}, indent=1, sort_keys=True) + "\n"
        manifest.write_text(text, encoding="utf-8")
        for path in [manifest, *(p for p in partial.rglob("*") if p.is_dir()), partial]:
            sync_to_disk(path)
        _put_in_place(partial, final, guard)


def _put_in_place(partial: Path, final: Path, guard: Guard) -> None:
    replaced = final.parent / f".{final.name}.replaced"
    shutil.rmtree(replaced, ignore_errors=True)
    with guard():
        if final.exists():
            final.rename(replaced)
        try:
            partial.rename(final)
        except OSError:
            if replaced.exists():
                replaced.rename(final)
            raise
        sync_to_disk(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def verify(folder: Path) -> dict[str, Any]:
    """Check every file against the manifest and return the manifest.

    Raises:
        CheckpointError: no manifest, an unknown format, or a file that is missing or differs.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise CheckpointMissing(f"{folder}: no such checkpoint folder")
    if not path.is_file():
        raise CheckpointError(f"{folder}: incomplete, there is no {MANIFEST}")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        files = dict(manifest["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a readable manifest ({type(error).__name__}: {error})") from error
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format {manifest.get('format')!r} is not the supported format {FORMAT}")
    for name, entry in files.items():
        _check_size(folder, name, entry)
        if file_sha256(folder / name) != entry["sha256"]:
            raise CheckpointError(f"{folder}: {name} is damaged, its sha256 is not that of the manifest")
    return manifest


def _check_size(folder: Path, name: str, entry: FileFacts, hint: str = "") -> None:
    file = folder / name
    if not file.is_file():
        raise CheckpointError(f"{folder}: incomplete, {name} is missing{hint}")
    if file.stat().st_size != entry["bytes"]:
        raise CheckpointError(f"{folder}: {name} has {file.stat().st_size} bytes instead of {entry['bytes']}{hint}")


def checkpoint_step(folder: Path) -> int | None:
    """N of a folder called step-N, else None."""
    match = _STEP.fullmatch(folder.name)
    return int(match[1]) if match else None


def find_newest_complete(checkpoints: Path) -> tuple[Path | None, list[Skipped]]:
    """The checkpoint with the highest step whose files all agree with its manifest. Call ``sweep`` before.

    Returns:
        its folder, or None if there is none, and the newer ones that were skipped, newest first, with the reason.
    """
    skipped = []
    for folder in newest_first(checkpoints):
        try:
            verify(folder)
        except CheckpointError as error:
            skipped.append(Skipped(folder, str(error)))
        else:
            return folder, skipped
    return None, skipped


def newest_first(checkpoints: Path) -> list[Path]:
    """Folders called step-N, complete or not."""
    if not checkpoints.is_dir():
        return []
    found = {step: p for p in checkpoints.iterdir() if p.is_dir() and (step := checkpoint_step(p)) is not None}
    return [found[step] for step in sorted(found, reverse=True)]


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB"


def file_sha256(path: Path) -> str:
    """Of what is in the file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_to_disk(path: Path) -> None:
    """Make a file, or the entries of a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
