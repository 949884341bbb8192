"""From a study to the configurations of its cells."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from cluster.config.paths import absolute_model_path
from cluster.config.run_config import RunConfig, parse_config
from cluster.config.yaml_source import read_source
from cluster.study.config import Cell, StudyConfig
from rollout.component.mistakes import Conflict

LIMIT_OF_SHARED = "write 'processes: run', which makes a run of its own of each cell"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCell:
    """A cell with its configuration.

    Attributes:
        cell: where it is in the grid.
        config: what is run; its folder is ``runs/`` and the cell's name in the study's folder.
        fingerprint: of everything in the configuration that may move a number: a line of cells.jsonl with another one
            is of another study.
        engine: cells with the same one can use the same engine.
    """

    cell: Cell
    config: RunConfig
    fingerprint: str
    engine: str


def plan_cells(study: StudyConfig, file: Path) -> list[PlannedCell]:
    """The configuration of every cell.

    Args:
        file: the study's, for messages.

    Raises:
        UserError: the base cannot be read, a change does not fit it, or a cell cannot run as the study asks for.
    """
    planned = [_planned(study, file, cell) for cell in study.cells()]
    if study.processes == "shared":
        for one in planned:
            if reason := _why_not_shared(one.config):
                raise Conflict(f"{file}: cell {one.cell.name}: {reason}; {LIMIT_OF_SHARED}")
    return planned


def _planned(study: StudyConfig, file: Path, cell: Cell) -> PlannedCell:
    source = read_source(study.base)
    for place, key, value in study.changes(cell):
        # A copy: a later change may write into the value.
        source.assign(key, deepcopy(value), f"{file}: {place}" if place else f"{file}")
    source.assign("seed", cell.seed, f"{file}: seeds")
    source.assign("output_dir", str(Path(study.output) / "runs" / Path(cell.name).parent), f"{file}: output")
    source.assign("name", Path(cell.name).name, str(file))
    config = parse_config(source)
    return PlannedCell(cell=cell, config=config, fingerprint=_fingerprint(config), engine=_engine(config))


def _fingerprint(config: RunConfig) -> str:
    """Of what is trained and how, whatever is written down of it and wherever.

    Defaults are left out, so that an option that a later version adds does not make its results those of another study.
    """
    left_out = {"name", "output_dir", "logging", "recovery"}
    data = config.model_dump(mode="json", exclude=left_out, exclude_defaults=True)
    if config.is_reproducible:  # the way of every cell before there was a choice
        data.get("rollout", {}).pop("reproducible", None)
    if config.reward.gold_labels is not None:  # likewise: all were drawn at random
        labels = data["reward"]["gold_labels"]
        labels.pop("choice", None)
        if config.reward.disputed_share(config.training.samples_per_prompt):
            labels["choice"] = "disputed"
    return hashlib.blake2b(json.dumps(data, sort_keys=True).encode(), digest_size=8).hexdigest()


def _engine(config: RunConfig) -> str:
    data = [absolute_model_path(config.model.path), config.model.trust_remote_code, config.rollout.model_dump()]
    return json.dumps(data, sort_keys=True)


def _why_not_shared(config: RunConfig) -> str:
    """What one process cannot do; empty if it can run the cell."""
    reasons: Iterable[tuple[bool, str]] = (
        (config.learner.num_workers > 1, f"learner.num_workers: {config.learner.num_workers} ranks need processes"),
        (
            config.cluster.gpus_per_learner_worker > 0 or config.cluster.gpus_per_rollout_worker > 0,
            "cluster.gpus_per_*_worker: one process trains and samples on CPU",
        ),
        (config.rollout.tensor_parallel_size > 1, "rollout.tensor_parallel_size: one process has one device"),
        (config.cluster.address is not None, "cluster.address: one process joins no cluster"),
        (
            any(spec.type == "model" for spec in (*config.reward.functions, *config.reward.gold)),
            "reward: a reward model has workers of its own",
        ),
    )
    return next((reason for found, reason in reasons if found), "")
