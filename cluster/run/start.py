"""From a checked configuration to a finished run: start everything, show progress, end everything."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from actors.ledger.errors import LedgerError
from actors.ledger.fence import take_over
from cluster.config.model_folder import foreign_code
from cluster.config.paths import absolute_model_path
from cluster.config.processes.joined_cluster import joined_address
from cluster.config.run_config import RunConfig
from cluster.config.run_facts import RunFacts, run_facts
from cluster.display.progress import Progress, RunSummary, make_progress
from cluster.display.summary import summary_rows
from cluster.preload.head_start import HeadStart
from cluster.run.assembly import LEDGER
from cluster.run.places.preflight import preflight
from cluster.run.resume import ResumePoint, find_resume_point, refuse_foreign_point
from cluster.run.session import ray_session
from cluster.run.signals import Interrupted, SignalFlag
from cluster.run.supervisor import Supervisor
from cluster.run.workers import create_fleet
from rollout.component.mistakes import NotWritable, RunExists


def run_training(
    config: RunConfig, resume: str | None = None, start: HeadStart | None = None, facts: RunFacts | None = None
) -> RunSummary:
    """Run a configuration to its end.

    Args:
        resume: None for a new run; ``auto`` for the newest complete checkpoint of the run's folder; or the path of
            one.
        start: what a private Ray begins with, where it is there already.
        facts: where they are known already.

    Raises:
        UserError: the run's folder is taken, there is nothing to resume, or the cluster cannot hold the run.
        RuntimeError: a worker failed; the message names it and the cause.
    """
    run_dir = config.run_dir.resolve()
    if resume is not None:
        with suppress(LedgerError):  # told when the controller opens it
            take_over(
                run_dir / LEDGER
            )  # a driver or controller that was given up but lives changes nothing from here on
    # Before anything is written: it refuses what cannot be gone on from.
    point = find_resume_point(run_dir, resume)
    if point is not None:
        refuse_foreign_point(config, run_dir / LEDGER, point)
    if resume is None and (run_dir / "metrics.jsonl").exists():
        raise RunExists(
            f"{run_dir} already holds a run; go on with it by --resume, or choose another name (--set name=...)"
        )
    facts = facts or run_facts(config)
    write_config(run_dir, facts.text)
    progress = make_progress(config.logging.progress)
    signals = SignalFlag()
    rows: list[tuple[str, str]] = []
    with signals.handled():
        progress.start()
        try:
            with ray_session(config, run_dir, facts.object_store_mib, start):
                signals.install()
                result = _run(config, run_dir, point, _resume_lines(resume, point), progress, signals)
            rows = summary_rows(config, run_dir, result)
        except Interrupted:
            pass
        finally:
            # After a failure too, or a live display would stay over its message.
            progress.finish(rows)
    return RunSummary(rows=rows, stopped_by=signals.received)


def delete_run(config: RunConfig) -> None:
    """Delete the folder of an earlier run; a folder that does not hold a run is left alone."""
    if (config.run_dir / "config.yaml").is_file():
        shutil.rmtree(config.run_dir)


def write_config(run_dir: Path, text: str) -> None:
    """Make the run's folder and put the configuration there; one that is there stays whole when the disk is full.

    Raises:
        UserError: it cannot be written.
    """
    partial = run_dir / ".config.yaml.partial"
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(run_dir / "config.yaml")
    except OSError as error:
        raise NotWritable(f"output_dir: {run_dir} cannot be written: {error.strerror}") from error


def _resume_lines(resume: str | None, point: ResumePoint | None) -> list[str]:
    if resume is None:
        return []
    if point is None:
        return ["there is no checkpoint yet: starting from the beginning"]
    return [f"going on after step {point.step} from {point.path}", *(f"skipped {reason}" for reason in point.skipped)]


def _run(
    config: RunConfig,
    run_dir: Path,
    point: ResumePoint | None,
    opening: Sequence[str],
    progress: Progress,
    signals: SignalFlag,
) -> dict[str, Any]:
    model_path = absolute_model_path(config.model.path)
    fleet = create_fleet(config, model_path, model_path, tell=progress.event, check=signals.check)
    supervisor = Supervisor(config, run_dir, fleet, progress, signals)
    if joined_address(config) is not None:  # a private Ray is on this machine, which `dvpo check` has looked at
        try:
            preflight(config, run_dir, fleet.groups, lambda line: supervisor.tell("start", line))
        except BaseException:
            fleet.stop(config.cluster.shutdown_timeout_s)
            raise
    if warning := foreign_code(config.model):
        supervisor.tell("security", warning, "warning")
    try:
        return supervisor.run(point, opening)
    finally:
        # The controller first: only it knows the engines that have replaced others.
        supervisor.close(config.cluster.shutdown_timeout_s)
        fleet.stop(config.cluster.shutdown_timeout_s)
