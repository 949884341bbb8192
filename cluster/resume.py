"""Where a run goes on from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from learner.manifest import checkpoint_step, find_newest_complete, verify
from rollout.component import UserError, nearest


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """A complete checkpoint.

    Attributes:
        path: its folder.
        step: updates done.
        skipped: newer folders that are not complete, each in words.
    """

    path: Path
    step: int
    skipped: tuple[str, ...] = ()


def find_resume_point(run_dir: Path, resume: str | None) -> ResumePoint | None:
    """The checkpoint that ``--resume`` means; None without it.

    Args:
        resume: ``auto`` for the newest complete checkpoint of the run, or the folder of one.

    Raises:
        UserError: there is no complete checkpoint.
    """
    if resume is None:
        return None
    if resume != "auto":
        return _resume_point(Path(resume))
    newest, skipped = find_newest_complete(run_dir / "checkpoints")
    reasons = tuple(f"{entry.path.name}: {entry.reason}" for entry in skipped)
    if newest is None:
        raise UserError(
            f"--resume: no complete checkpoint in {run_dir / 'checkpoints'} ({'; '.join(reasons) or 'none found'})"
        )
    return _resume_point(newest, reasons)


def _resume_point(path: Path, skipped: tuple[str, ...] = ()) -> ResumePoint:
    if not path.is_dir():
        siblings = [str(sibling) for sibling in path.parent.glob("step-*")] if path.parent.is_dir() else []
        raise UserError(f"--resume: no such folder: {path}" + (f"; {nearest(str(path), siblings)}" if siblings else ""))
    verify(path)
    step = checkpoint_step(path.resolve())
    if step is None:
        raise UserError(f"--resume: {path} is not named step-N")
    return ResumePoint(path.resolve(), step, skipped)
