"""Commands that read a run's configuration: train, check, eval, audit."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from actors.recording.safe_text import safe, without_secrets
from cluster.cli.output import RunFailed, print_lines
from cluster.cli.paths import PATH, PATH_TEXT
from rollout.component import UserError
from rollout.component.mistakes import BadArgument, MachineTooSmall

if TYPE_CHECKING:
    from cluster.check.check import CheckReport
    from cluster.config.run_config import RunConfig
    from cluster.config.yaml_source import ConfigSource

OVERRIDES = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one value of the configuration, e.g. training.num_steps=10 or reward.noise.0.p=0.2. Repeatable.",
)
CONFIG = click.argument("config", metavar="CONFIG", type=PATH)


@click.command()
@CONFIG
@OVERRIDES
@click.option(
    "--resume",
    type=PATH_TEXT,
    is_flag=False,
    flag_value="auto",
    metavar="[auto|PATH]",
    help="Go on from a checkpoint: the newest of this run, or the folder PATH (.../checkpoints/step-N).",
)
@click.option("--overwrite", is_flag=True, help="Delete an earlier run of the same name first.")
@click.option("--dry-run", is_flag=True, help="Check everything, print what would be done, and stop.")
def train(config: Path, overrides: tuple[str, ...], resume: str | None, overwrite: bool, dry_run: bool) -> None:
    """Train as CONFIG says.

    Everything is checked before Ray and workers start. Ctrl-C or SIGTERM writes a checkpoint, from which --resume goes
    on.
    """
    if resume is not None and overwrite:
        raise BadArgument("--overwrite: deletes what --resume would go on from; give one of them")
    source, run = _read(config, overrides)
    if dry_run:
        plan = _check(run, source, resume, overwrite, is_training=True)
        print_lines([*plan, "dry run: nothing was started"])
        return
    from cluster.check.apart import Question, check_apart, head_start

    with head_start(run) as start:
        checked = check_apart(Question(config=run, resume=resume, overwrite=overwrite), start)
        _tell(checked.report, source, is_training=True)
        from cluster.run.start import delete_run, run_training

        if overwrite:
            # Only now, when nothing is left that could refuse the new run.
            delete_run(run)
        with _told_by_its_message(run):
            summary = run_training(run, resume=resume, start=start, facts=checked.facts)
    if summary.stopped_by is not None:
        click.echo(f"stopped by {summary.signal_name}", err=True)
    click.get_current_context().exit(summary.exit_status)


@click.command()
@CONFIG
@OVERRIDES
@click.option("--measure", is_flag=True, help="Then take a few steps with the real model, to say how long a run takes.")
def check(config: Path, overrides: tuple[str, ...], measure: bool) -> None:
    """Check that CONFIG can run here, without starting anything.

    Looks at keys and values, the model, the data, the reward and noise classes, and the machine's resources; prints
    what follows from the configuration, such as the number of trajectories in one step. With --measure a short run
    follows, whose folder is removed: its rewards are asked, and what it takes is told.
    """
    source, run = _read(config, overrides)
    print_lines(_check(run, source, resume=None, overwrite=True, is_training=True))
    if measure:
        from cluster.check.measure import measure as take_steps

        click.echo("measuring: a start and a few steps, which takes a minute or more", err=True)
        with _told_by_its_message(run):
            print_lines(take_steps(run).lines(run))
    print_lines(["ok"])


@click.command(short_help="Say what a run takes of each GPU, before anything starts.")
@CONFIG
@OVERRIDES
@click.option("--gpus", metavar="[NODESx]GPUSxGIB", help="What it is meant for, e.g. 8x80, or 4x8x80 for four nodes.")
def plan(config: Path, overrides: tuple[str, ...], gpus: str | None) -> None:
    """Say what a run of CONFIG takes of each GPU, and how fast it may be, from its models' config.json alone.

    With --gpus exit status 2 if it does not fit, with the setting to change; and the best split of the GPUs between
    training and sampling. No weights are read or downloaded, and no GPU is needed. Speed is a rough estimate.
    """
    from cluster.check.memory_plan.plan import Gpus, plan_run
    from cluster.check.model import check_deepspeed
    from cluster.config.components import build_algorithm
    from learner.config import check_compatible

    meant = None if gpus is None else Gpus.parse(gpus)
    source, run = _read(config, overrides)
    check_compatible(run.model, run.learner)
    check_deepspeed(run)
    planned = plan_run(run, build_algorithm(run), meant)
    print_lines(planned.lines())
    problems = [str(MachineTooSmall(problem)) for problem in planned.problems()]
    if problems:
        raise UserError("\n".join(source.locate(problem) for problem in problems))
    if meant is not None:
        print_lines(["it fits"])


@click.command(name="eval", short_help="Measure a checkpoint on held-out prompts.")
@click.argument("checkpoint", type=PATH)
@click.option("--config", required=True, type=PATH, help="The run's config.yaml, or any other.")
@OVERRIDES
@click.option("--split", "splits", multiple=True, help="Evaluation split; repeatable. All by default.")
@click.option("--output", type=PATH, help="Write each answer as a line of JSON to this file.")
def evaluate(
    checkpoint: Path, config: Path, overrides: tuple[str, ...], splits: tuple[str, ...], output: Path | None
) -> None:
    """Measure CHECKPOINT on held-out prompts: greedy answers, clean reward.

    CHECKPOINT is a run's checkpoints/step-N or any model folder in Hugging Face format.
    """
    from cluster.api.checkpoints import chosen_splits, policy_folder

    folder = policy_folder(checkpoint)
    # JSON is YAML too, and quotes what YAML would take for something else than a text.
    source, run = _read(config, (*overrides, f"model.path={json.dumps(str(folder))}"))
    from cluster.check.apart import Question, check_apart, head_start

    with head_start(run) as start:
        _tell(check_apart(Question(config=run, resume=None, overwrite=True), start).report, source)
        chosen = chosen_splits(run, splits)
        from cluster.display.progress import format_table
        from cluster.run.evaluate import run_evaluation

        print_lines(format_table(run_evaluation(run, folder, chosen, output, start)))


@click.command(short_help="Estimate how far the reward can be trusted.")
@click.argument("config", metavar="CONFIG|RUN", type=PATH)
@OVERRIDES
@click.option("--gold", type=PATH, help="JSONL or Parquet: prompt, response, gold label.")
@click.option("--num-samples", type=click.IntRange(min=1), help="Most responses that are scored; all by default.")
@click.option("--exclusive", is_flag=True, help="Of a RUN: at most one answer to a prompt is right.")
@click.option("--output", type=PATH, help="JSON file for the report; a plot goes beside it.")
def audit(
    config: Path,
    overrides: tuple[str, ...],
    gold: Path | None,
    num_samples: int | None,
    exclusive: bool,
    output: Path | None,
) -> None:
    """Estimate how far the reward of CONFIG can be trusted, and say which method suits it.

    With --gold, labelled responses are scored and false positives and negatives are estimated with intervals. Without,
    the responses that a run of CONFIG has logged are scored; what can be said then is less, and the report says so.

    With the folder of a RUN, which may be going on, nothing is scored: where answers came again, its own scores tell
    the errors that are drawn anew at each score, and true scores that it was allowed to look at tell the others.
    """
    from actors.ledger.report import find_run
    from cluster.audit.audit import run_audit, write_report
    from cluster.audit.recorded import audit_run

    if config.is_dir():
        folder = find_run(str(config))
        if overrides or gold is not None or num_samples is not None:
            raise BadArgument(f"{config}: --set, --gold and --num-samples are for a CONFIG; a RUN is audited as it was")
        recorded = audit_run(folder, exclusive=exclusive)
        if output is not None:
            write_report(recorded, output)
        print_lines(recorded.lines())
        return
    if exclusive:
        raise BadArgument("--exclusive: is for a RUN, whose answers are compared with each other")
    _, run = _read(config, overrides)
    print_lines(run_audit(run, gold, num_samples, output).lines())


def checked_run(config: Path, overrides: Sequence[str], resume: str | None = None) -> RunConfig:
    """The configuration, once everything that a run of it needs has been checked."""
    source, run = _read(config, overrides)
    # No run is written, so that one of the same name exists is no mistake.
    _check(run, source, resume=resume, overwrite=True)
    return run


def _read(config: Path, overrides: Sequence[str]) -> tuple[ConfigSource, RunConfig]:
    """The configuration and where its values were written."""
    from cluster.config.run_config import parse_config
    from cluster.config.yaml_source import read_source

    source = read_source(config, overrides)
    return source, parse_config(source)


def _check(
    run: RunConfig, source: ConfigSource, resume: str | None, overwrite: bool, is_training: bool = False
) -> list[str]:
    """Check the run; show warnings, raise on errors with the file and line of each; returns the plan.

    ``is_training``: show remarks too, which are about training.
    """
    from cluster.check.check import check_run

    report = check_run(run, resume=resume, overwrite=overwrite)
    _tell(report, source, is_training)
    return report.plan


def _tell(report: CheckReport, source: ConfigSource, is_training: bool = False) -> None:
    """Show warnings, raise on errors."""
    for warning in report.warnings:
        click.echo(f"warning: {safe(source.locate(warning))}", err=True)
    if report.errors:
        raise UserError("\n".join(source.locate(error) for error in report.errors))
    if is_training and report.remarks:
        print_lines([f"remark: {source.locate(remark)}" for remark in report.remarks])


@contextmanager
def _told_by_its_message(run: RunConfig) -> Iterator[None]:
    """What can go wrong in a run is told by its message; anything else is a fault of ours and keeps its traceback."""
    try:
        yield
    except (RuntimeError, TimeoutError) as error:
        raise RunFailed(_failure(run, error)) from error


def _failure(run: RunConfig, error: Exception) -> str:
    """What happened, and the file that holds the traceback."""
    file = run.run_dir / "error.txt"
    try:
        run.run_dir.mkdir(parents=True, exist_ok=True)
        file.write_text(without_secrets("".join(traceback.format_exception(error))), encoding="utf-8")
    except OSError:
        return str(error)
    return f"{error}\ndetails: {file}"
