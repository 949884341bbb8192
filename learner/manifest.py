"""Folders that are either complete or not there: written aside, described by a manifest, renamed into place."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rollout.component import UserError

MANIFEST = "manifest.json"
FORMAT = 1
_STEP = re.compile(r"step-(\d+)")


class CheckpointError(UserError):
    """A checkpoint is missing, incomplete or does not fit; the message names the folder and what is wrong."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A checkpoint folder that was passed over, and why."""

    path: Path
    reason: str


def begin(final: Path) -> Path:
    """A fresh, empty folder beside ``final`` to write into. What an interrupted attempt left there is removed."""
    partial = final.parent / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def commit(partial: Path, final: Path, facts: Mapping[str, Any]) -> None:
    """Describe every file of ``partial`` in a manifest, make all of it durable, and rename it to ``final``.

    A folder that was at ``final`` before is replaced. Until the rename, ``final`` is as it was.

    Args:
        facts: what else the manifest says; must be JSON.
    """
    files = {}
    for path in sorted(p for p in partial.rglob("*") if p.is_file()):
        files[path.relative_to(partial).as_posix()] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        _sync(path)
    manifest = partial / MANIFEST
    manifest.write_text(json.dumps({"format": FORMAT, **facts, "files": files}, indent=1, sort_keys=True) + "\n")
    for path in [manifest, *(p for p in partial.rglob("*") if p.is_dir()), partial]:
        _sync(path)
    replaced = final.parent / f".{final.name}.replaced"
    shutil.rmtree(replaced, ignore_errors=True)
    if final.exists():
        final.rename(replaced)
    partial.rename(final)
    _sync(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def verify(folder: Path) -> dict[str, Any]:
    """Check every file against the manifest and return the manifest.

    Raises:
        CheckpointError: no manifest, an unknown format, or a file that is missing or differs.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint folder")
    if not path.is_file():
        raise CheckpointError(f"{folder}: incomplete, there is no {MANIFEST}")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        files = dict(manifest["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a readable manifest ({type(error).__name__}: {error})") from error
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"{path}: format {manifest.get('format')!r} is not the supported format {FORMAT}")
    for name, entry in files.items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{folder}: incomplete, {name} is missing")
        if file.stat().st_size != entry["bytes"]:
            raise CheckpointError(f"{folder}: {name} has {file.stat().st_size} bytes instead of {entry['bytes']}")
        if _sha256(file) != entry["sha256"]:
            raise CheckpointError(f"{folder}: {name} is damaged, its sha256 is not that of the manifest")
    return manifest


def checkpoint_step(folder: Path) -> int | None:
    """N of a folder called step-N, else None."""
    match = _STEP.fullmatch(folder.name)
    return int(match[1]) if match else None


def find_newest_complete(checkpoints: Path) -> tuple[Path | None, list[Skipped]]:
    """The checkpoint with the highest step whose files all agree with its manifest.

    Returns:
        its folder, or None if there is none, and the newer ones that were skipped, newest first, with the reason.
    """
    skipped = []
    for folder in _newest_first(checkpoints):
        try:
            verify(folder)
        except CheckpointError as error:
            skipped.append(Skipped(folder, str(error)))
        else:
            return folder, skipped
    return None, skipped


def prune(checkpoints: Path, keep: int) -> list[Path]:
    """Delete all but the ``keep`` newest checkpoints that have a manifest; returns what was deleted."""
    complete = [folder for folder in _newest_first(checkpoints) if (folder / MANIFEST).is_file()]
    for folder in complete[keep:]:
        (folder / MANIFEST).unlink()  # first, so that a half-deleted folder is never taken for a complete one
        shutil.rmtree(folder)
    return complete[keep:]


def _newest_first(checkpoints: Path) -> list[Path]:
    if not checkpoints.is_dir():
        return []
    found = {step: p for p in checkpoints.iterdir() if p.is_dir() and (step := checkpoint_step(p)) is not None}
    return [found[step] for step in sorted(found, reverse=True)]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
