"""What ``dvpo train``, ``dvpo eval`` and ``dvpo compare`` do, as functions."""

from __future__ import annotations

import copy
import signal
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from cluster.api.checkpoints import chosen_splits, model_of
from cluster.api.run_data import Run, load_run
from cluster.api.tables import answer_frame
from cluster.check.apart import Question, check_apart, head_start
from cluster.check.check import CheckReport
from cluster.config.processes.search_path import prepare_process
from cluster.config.run_config import RunConfig, parse_config
from cluster.config.yaml_source import ConfigSource, read_source
from cluster.report.compare import Comparison, compare_runs
from rollout.component import UserError
from rollout.component.mistakes import BadArgument

Config = str | Path | Mapping[str, Any]


def train(
    config: Config,
    changes: Mapping[str, Any] | None = None,
    *,
    resume: str | Path | None = None,
    overwrite: bool = False,
) -> Run:
    """Train to the end, and load the run. Everything is checked before Ray and workers start.

    Args:
        config: a YAML file, or its contents as nested mappings; these need a ``name`` for the run.
        changes: values by dotted key, such as ``{"training.num_steps": 20}``: what ``--set`` does.
        resume: go on from the newest checkpoint of the run (``"auto"``), or from a folder ``.../checkpoints/step-N``.
        overwrite: delete an earlier run of the same name first.

    Raises:
        UserError: something given is wrong, or the run's folder is taken.
        RuntimeError: a worker failed; the message names it and the cause.
        KeyboardInterrupt, SystemExit: the run was stopped by Ctrl-C or SIGTERM; it has written a checkpoint.
    """
    if resume is not None and overwrite:
        raise BadArgument("overwrite: deletes what resume would go on from; give one of them")
    source, run = _read(config, changes)
    from cluster.run.start import delete_run, run_training

    wanted = None if resume is None else str(resume)
    with head_start(run) as start:
        checked = check_apart(Question(config=run, resume=wanted, overwrite=overwrite), start)
        _tell(checked.report, source)
        if overwrite:
            # Only now, when nothing is left that could refuse the new run.
            delete_run(run)
        summary = run_training(run, resume=wanted, start=start, facts=checked.facts)
    if summary.stopped_by == signal.SIGINT:
        raise KeyboardInterrupt
    if summary.stopped_by is not None:
        raise SystemExit(summary.exit_status)
    return load_run(run.run_dir)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How a model did on held-out prompts.

    Attributes:
        model: its folder.
        metrics: by split: ``accuracy``, the ends of its exact 95 % interval where scores are 0 or 1, and what
            else was measured.
        answers: a row for each answer: split, prompt, reference, response, clean score.
    """

    model: Path
    metrics: Mapping[str, Mapping[str, float]]
    answers: pa.Table


def evaluate(
    model: Run | str | Path,
    config: Config | None = None,
    changes: Mapping[str, Any] | None = None,
    *,
    splits: Sequence[str] = (),
) -> Evaluation:
    """Measure a model on held-out prompts: greedy answers, clean scores.

    Args:
        model: a run, of which the newest checkpoint is taken; a folder ``.../checkpoints/step-N``; or a model folder.
        config: task, rewards and engines; by default those of the run that the checkpoint is of.
        changes: as for :func:`train`.
        splits: of the task; all by default.

    Raises:
        UserError: something given is wrong.
    """
    folder, own_config = model_of(model.folder if isinstance(model, Run) else Path(model))
    if config is None and own_config is None:
        raise BadArgument(f"config: {folder} lies in no run's folder, so say which task and rewards to measure it with")
    wanted = str(own_config) if config is None else config
    source, run = _read(wanted, {**(changes or {}), "model.path": str(folder)})
    # No run is written, so that one of the same name exists is no mistake.
    with head_start(run) as start:
        _tell(check_apart(Question(config=run, resume=None, overwrite=True), start).report, source)
        chosen = chosen_splits(run, splits, "splits")
        from cluster.run.evaluate import answer_records, answers_of

        answers = answers_of(run, folder, chosen, start)
    return Evaluation(
        model=folder,
        metrics={split: answered.metrics(run.evaluation) for split, answered in answers.items()},
        answers=answer_frame(answer_records(answers)),
    )


def compare(*runs: Run | str | Path, metrics: Sequence[str] = ()) -> Comparison:
    """Put runs side by side as ``dvpo compare`` does: the settings that differ, scores, and paired differences.

    Args:
        metrics: keys; by default the held-out accuracies.

    Raises:
        UserError: a run or metric does not exist, or fewer than two runs are given.
    """
    if len(runs) < 2:
        raise BadArgument("runs: at least two are compared")
    return compare_runs([run.record if isinstance(run, Run) else load_run(run).record for run in runs], metrics)


def _read(config: Config, changes: Mapping[str, Any] | None) -> tuple[ConfigSource, RunConfig]:
    """The configuration, and where its values were given."""
    prepare_process()
    if isinstance(config, Mapping):
        if "name" not in config:
            raise BadArgument("config: 'name' is missing: what the run and its folder are called")
        source = ConfigSource("config", copy.deepcopy(dict(config)), {})
    else:
        source = read_source(config)
    for key, value in (changes or {}).items():
        source.assign(key, copy.deepcopy(value), "changes")
    return source, parse_config(source)


def _tell(report: CheckReport, source: ConfigSource) -> None:
    for warning in report.warnings:
        warnings.warn(source.locate(warning), stacklevel=3)
    if report.errors:
        raise UserError("\n".join(source.locate(error) for error in report.errors))
