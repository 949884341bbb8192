"""Looks at every cell of a study before any process starts, so that a mistake does not show after hours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from cluster.check.check import CheckReport, check_run, check_update_shape
from cluster.config.components import build_algorithm, build_noise, build_noise_chain, build_task
from cluster.config.run_config import RunConfig
from cluster.study.cells import PlannedCell
from cluster.study.config import StudyConfig
from rollout.component import UserError


def check_cells(study: StudyConfig, cells: Sequence[PlannedCell], file: Path) -> list[str]:
    """Check everything; returns warnings.

    The first cell of each task is checked as `dvpo check` does it; of the others, what is different in them. A seed
    changes nothing that could be wrong.

    Raises:
        UserError: one line for each mistake, with its cell.
    """
    first_seed = study.seeds[0]
    errors: dict[str, str] = {}  # the same mistake is in many cells: the first of them stands for it
    warnings: list[str] = []
    seen: set[str] = set()
    for planned in (one for one in cells if one.cell.seed == first_seed):
        if planned.cell.task in seen:
            found = _check_parts(planned.config)
        else:
            found = check_run(planned.config, overwrite=True)
            found.errors += _unknown_splits(study.metrics, planned.config)
            if study.processes == "shared":  # what a Ray of its own would need does not matter
                found.errors = [error for error in found.errors if not error.startswith("cluster.")]
                found.warnings = [warning for warning in found.warnings if not warning.startswith("cluster.")]
        seen.add(planned.cell.task)
        for error in found.errors:
            errors.setdefault(error, planned.cell.name)
        warnings += [f"cell {planned.cell.name}: {warning}" for warning in found.warnings]
    if errors:
        raise UserError("\n".join(f"{file}: cell {name}: {error}" for error, name in errors.items()))
    return warnings


def _check_parts(config: RunConfig) -> CheckReport:
    report = CheckReport()
    report.attempt(build_task, config)
    if None not in [report.attempt(build_noise, config, index) for index in range(len(config.reward.noise))]:
        report.attempt(build_noise_chain, config)
    algorithm = report.attempt(build_algorithm, config)
    if algorithm is not None:
        report.attempt(check_update_shape, config, algorithm)
    return report


def _unknown_splits(metrics: Sequence[str], config: RunConfig) -> Iterable[str]:
    """Metrics of splits that the task does not have."""
    splits = build_task(config).splits
    for metric in metrics:
        area, _, rest = metric.partition("/")
        if area == "eval" and rest.partition("/")[0] not in splits:
            yield f"metrics: {metric!r} is of none of the task's splits: {', '.join(splits)}"
