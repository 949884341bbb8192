"""Where a run goes on from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from actors.ledger.report import num_steps
from cluster.config.components import build_algorithm
from cluster.config.run_config import RunConfig
from learner.storage.folders import sweep
from learner.storage.manifest import checkpoint_step, find_newest_complete, verify
from rollout.component import nearest
from rollout.component.mistakes import NoCheckpoint, RunDiffers


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
    """The checkpoint that ``--resume`` means; None for the beginning, without it or before the first checkpoint.

    Args:
        resume: ``auto`` for the newest complete checkpoint of the run, or the folder of one.

    Raises:
        UserError: there are checkpoints, and none of them is complete; or reading it would run code.
    """
    if resume is None:
        return None
    point = newest_resume_point(run_dir) if resume == "auto" else _resume_point(Path(resume))
    if point is not None:
        from learner.checkpoint.safety import refuse_code  # here, since it loads torch

        refuse_code(point.path)  # as the learner will, but before anything is started
    return point


def refuse_foreign_point(config: RunConfig, ledger: Path, point: ResumePoint) -> None:
    """Look whether a checkpoint is of this run, as learner and controller will, but before anything is started.

    Args:
        ledger: of the run.

    Raises:
        UserError: it is of other models, or has more steps than the run's ledger knows.
    """
    from learner.checkpoint.foreign import refuse_foreign  # here, since it loads torch

    refuse_foreign(point.path, config.model, build_algorithm(config), config.learner.zero_stage)
    known = num_steps(ledger)
    if known is not None and known < point.step:
        raise RunDiffers(
            f"--resume: {ledger} knows {known} trained steps and cannot go on from {point.path}. The ledger was "
            "deleted or replaced, or one of them is of another run: restore it, or start a new run"
        )


def newest_resume_point(run_dir: Path) -> ResumePoint | None:
    """The newest complete checkpoint of the run; None if none was written yet.

    What killed saves have left is cleared up first, so no other process may be saving.

    Raises:
        UserError: there are checkpoints, and none of them is complete.
    """
    sweep(run_dir / "checkpoints")
    newest, skipped = find_newest_complete(run_dir / "checkpoints")
    reasons = tuple(f"{entry.path.name}: {entry.reason}" for entry in skipped)
    if newest is None and skipped:
        raise NoCheckpoint(f"--resume: no complete checkpoint in {run_dir / 'checkpoints'}: {'; '.join(reasons)}")
    return _resume_point(newest, reasons) if newest is not None else None


def _resume_point(path: Path, skipped: tuple[str, ...] = ()) -> ResumePoint:
    if not path.is_dir():
        siblings = [str(sibling) for sibling in path.parent.glob("step-*")] if path.parent.is_dir() else []
        raise NoCheckpoint(
            f"--resume: no such folder: {path}" + (f"; {nearest(str(path), siblings)}" if siblings else "")
        )
    verify(path)
    # A link, such as one called "latest", has no step in its own name.
    step = checkpoint_step(path.resolve())
    if step is None:
        raise NoCheckpoint(f"--resume: {path} is not named step-N")
    return ResumePoint(path.resolve(), step, skipped)
