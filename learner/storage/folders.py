"""What happens to checkpoints as a whole: clearing up after killed processes, pruning, going back.

Beside ``step-N`` there may be, while something is under way or after it was killed:

    .step-N.XXXXXXXX.partial   being written; under a new name each time, out of reach of a writer thought dead
    .step-N.replaced           what was step-N, while the new one takes its place
    .step-N.pruned             being deleted
    .step-N.resharded          being read by another number of ranks
"""

from __future__ import annotations

import re
import shutil
from contextlib import nullcontext
from pathlib import Path

from learner.storage.manifest import (
    MANIFEST,
    CheckpointError,
    Guard,
    checkpoint_step,
    newest_first,
    sync_to_disk,
    verify,
)

_LEFT_OVER = re.compile(r"\.(step-\d+)\.(?:.*\.)?(partial|replaced|pruned|resharded)")


def sweep(checkpoints: Path) -> list[Path]:
    """Clear up what killed processes left; no process may be saving or loading there.

    Where a save was killed after all of it was durable and there is no ``step-N``, that save is completed; where it
    was killed while it took an older one's place, the older one is put back. All else that is unfinished is deleted.

    Returns:
        what was deleted, sorted.
    """
    if not checkpoints.is_dir():
        return []
    left = [(p, match) for p in sorted(checkpoints.iterdir()) if (match := _LEFT_OVER.fullmatch(p.name))]
    for path, match in left:
        if match[2] == "partial" and not (checkpoints / match[1]).exists() and _is_whole(path):
            path.rename(checkpoints / match[1])
    for path, match in left:
        if match[2] == "replaced" and not (checkpoints / match[1]).exists():
            path.rename(checkpoints / match[1])
    sync_to_disk(checkpoints)
    removed = [path for path, _ in left if path.exists()]
    for path in removed:
        shutil.rmtree(path)
    return removed


def _is_whole(folder: Path) -> bool:
    try:
        verify(folder)
    except CheckpointError:
        return False
    return True


def prune(checkpoints: Path, keep: int, guard: Guard = nullcontext) -> list[Path]:
    """Delete all but the ``keep`` newest checkpoints that have a manifest; returns what was deleted.

    ``guard`` is entered for each of them while it is taken out of the others' sight.
    """
    complete = [folder for folder in newest_first(checkpoints) if (folder / MANIFEST).is_file()]
    for folder in complete[keep:]:
        pruned = folder.with_name(f".{folder.name}.pruned")  # a half-deleted folder is never taken for a checkpoint
        shutil.rmtree(pruned, ignore_errors=True)
        with guard():
            folder.rename(pruned)
        shutil.rmtree(pruned)
    return complete[keep:]


def set_aside_newer(checkpoints: Path, step: int) -> list[Path]:
    """Rename checkpoints newer than ``step`` to ``step-N.undone``, for a run that goes on from ``step``.

    Left as they are, they would be taken for that run's own: the next resume would go on from one of them, and
    :func:`prune` would delete the run's new checkpoints as the older ones. An older ``step-N.undone`` is replaced.

    Returns:
        the new paths, newest first.
    """
    undone = []
    for folder in newest_first(checkpoints):
        if (checkpoint_step(folder) or 0) > step:
            target = folder.with_name(f"{folder.name}.undone")
            shutil.rmtree(target, ignore_errors=True)
            undone.append(folder.rename(target))
    return undone
