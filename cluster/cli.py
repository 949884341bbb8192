"""The command line: ``dvpo``, or ``python -m cluster.cli``.

Importing this module loads neither torch nor Ray nor vLLM, so that ``--help`` and mistakes in a configuration answer
at once; each command imports what it needs. A mistake of the user's ends with one message and exit status 2.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cluster import __version__
from rollout.component import UserError

if TYPE_CHECKING:
    from cluster.config import RunConfig
    from cluster.yaml_source import ConfigSource

OVERRIDES = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one value of the configuration, e.g. training.num_steps=10 or reward.noise.0.p=0.2. Repeatable.",
)
CONFIG = click.argument("config", metavar="CONFIG", type=click.Path(path_type=Path))


class Mistake(click.ClickException):
    """A user's mistake: each line of the message is shown after ``error:``."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Print the message to standard error."""
        for line in self.message.splitlines():
            click.echo(f"error: {line}", err=True, file=file)


class RunFailed(Mistake):
    """The run could not go on, and nothing that the user gave is wrong."""

    exit_code = 1


class Commands(click.Group):
    """Turns user mistakes and Ctrl-C into messages and exit statuses, whichever command they come from."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise Mistake(str(error)) from error
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(128 + signal.SIGINT)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="dvpo")
def main() -> None:
    """Train language models by reinforcement learning when rewards are noisy.

    A run is described by one YAML file; configs/ has examples, and `dvpo schema` tells an editor what may be in it.

    Exit status: 0 done, 1 the run failed, 2 something given is wrong, 130 after Ctrl-C, 143 after SIGTERM.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    here = os.getcwd()
    if here not in sys.path:  # the user's own classes are importable from where the command is started
        sys.path.insert(0, here)


@main.command()
@CONFIG
@OVERRIDES
@click.option(
    "--resume",
    is_flag=False,
    flag_value="auto",
    metavar="[auto|PATH]",
    help="Go on from a checkpoint: the newest of this run, or the folder PATH (.../checkpoints/step-N).",
)
@click.option("--overwrite", is_flag=True, help="Delete an earlier run of the same name first.")
@click.option("--dry-run", is_flag=True, help="Check everything, print what would be done, and stop.")
def train(config: Path, overrides: tuple[str, ...], resume: str | None, overwrite: bool, dry_run: bool) -> None:
    """Train as CONFIG says.

    Everything is checked before any process starts. Ctrl-C or SIGTERM writes a checkpoint, from which --resume goes on.
    """
    if resume is not None and overwrite:
        raise UserError("--overwrite: deletes what --resume would go on from; give one of them")
    source, run = _read(config, overrides)
    plan = _check(run, source, resume, overwrite)
    if dry_run:
        _print_lines([*plan, "dry run: nothing was started"])
        return
    if overwrite:
        _delete_run(run)
    from cluster.start import run_training

    try:
        summary = run_training(run, resume=resume)
    except (RuntimeError, TimeoutError) as error:
        raise RunFailed(_failure(run, error)) from error
    if summary.stopped_by is not None:
        click.echo(f"stopped by {summary.signal_name}", err=True)
    click.get_current_context().exit(summary.exit_status)


@main.command()
@CONFIG
@OVERRIDES
def check(config: Path, overrides: tuple[str, ...]) -> None:
    """Check that CONFIG can run here, without starting anything.

    Looks at keys and values, the model, the data, the reward and noise classes, and the machine's resources; prints
    what follows from the configuration, such as the number of trajectories in one step.
    """
    source, run = _read(config, overrides)
    _print_lines([*_check(run, source, resume=None, overwrite=True), "ok"])


@main.command(name="eval", short_help="Measure a checkpoint on held-out prompts.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--config", required=True, type=click.Path(path_type=Path), help="The run's config.yaml, or any other.")
@OVERRIDES
@click.option("--split", "splits", multiple=True, help="Evaluation split; repeatable. All by default.")
@click.option("--output", type=click.Path(path_type=Path), help="Write each answer as a line of JSON to this file.")
def evaluate(
    checkpoint: Path, config: Path, overrides: tuple[str, ...], splits: tuple[str, ...], output: Path | None
) -> None:
    """Measure CHECKPOINT on held-out prompts: greedy answers, clean reward.

    CHECKPOINT is a run's checkpoints/step-N or any model folder in Hugging Face format.
    """
    folder = _policy_folder(checkpoint)
    source, run = _read(config, (*overrides, f"model.path={json.dumps(str(folder))}"))
    _check(run, source, resume=None, overwrite=True)
    chosen = _chosen_splits(run, splits)
    from cluster.evaluate import run_evaluation
    from cluster.progress import format_table

    _print_lines(format_table(run_evaluation(run, folder, chosen, output)))


@main.command(short_help="Print the JSON Schema of the configuration.")
@click.option("--output", type=click.Path(path_type=Path), help="File to write; standard output by default.")
def schema(output: Path | None) -> None:
    """Print the JSON Schema of the configuration, so that editors complete and check it.

    In VS Code or any editor with a YAML language server, put this on a file's first line:

        # yaml-language-server: $schema=dvpo.schema.json
    """
    from cluster.schema import build_schema

    text = json.dumps(build_schema(), indent=2)
    if output is None:
        click.echo(text)
    else:
        _write(output, text + "\n")


@main.command(short_help="Show versions, devices, memory, ports, and what to put right.")
@click.option("--quick", is_flag=True, help="Do not try to import torch, Ray, DeepSpeed and vLLM.")
def doctor(quick: bool) -> None:
    """Show what is installed, what this machine offers, and what to put right. Exit status 1 if a run cannot work."""
    from cluster.doctor import Level, examine, report_lines

    findings = examine(with_imports=not quick)
    _print_lines(report_lines(findings))
    if any(finding.level is Level.ERROR for finding in findings):
        click.get_current_context().exit(1)


@main.command(short_help="Make a small starting model for a task.")
@click.option("--task", default="chain", show_default=True, help="Built-in task, or 'package.module:Class'.")
@click.option(
    "--output", default="models/demo", show_default=True, type=click.Path(path_type=Path), help="Folder to write."
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="First weights and corpus.")
@click.option("--num-steps", type=click.IntRange(min=1), help="Optimiser steps; the default suits the chain task.")
def warmstart(task: str, output: Path, seed: int, num_steps: int | None) -> None:
    """Make a small starting model for a task that has demonstrations.

    It imitates imperfect demonstrations until it is right about half of the time, so that training has something to
    improve. Takes a minute or two on two CPU cores.
    """
    from cluster.warmstart import WarmstartConfig
    from cluster.warmstart import warmstart as make_model
    from rollout.component import ComponentSpec, build
    from rollout.tasks import TASKS
    from rollout.tasks.base import Task

    built = build(ComponentSpec(type=task), TASKS, Task, "--task")
    options = WarmstartConfig(seed=seed) if num_steps is None else WarmstartConfig(seed=seed, num_steps=num_steps)
    try:
        report = make_model(built, output, options, _print_step)
    except NotImplementedError as error:
        raise UserError(f"--task: {error}, so no starting model can be made for it") from error
    accuracy = "  ".join(f"{split} {value:.3f}" for split, value in report.accuracy.items())
    _print_lines(
        [
            f"{report.path}: {report.num_parameters:,} parameters, loss {report.loss:.3f}, {report.seconds:.0f} s",
            f"greedy accuracy on held-out questions: {accuracy}",
        ]
    )


def _read(config: Path, overrides: Sequence[str]) -> tuple[ConfigSource, RunConfig]:
    """The configuration and where its values were written."""
    from cluster.config import parse_config
    from cluster.yaml_source import read_source

    source = read_source(config, overrides)
    return source, parse_config(source)


def _check(run: RunConfig, source: ConfigSource, resume: str | None, overwrite: bool) -> list[str]:
    """Check the run; show warnings, raise on errors with the file and line of each; returns the plan."""
    from cluster.check import check_run

    report = check_run(run, resume=resume, overwrite=overwrite)
    for warning in report.warnings:
        click.echo(f"warning: {source.locate(warning)}", err=True)
    if report.errors:
        raise UserError("\n".join(source.locate(error) for error in report.errors))
    return report.plan


def _policy_folder(checkpoint: Path) -> Path:
    """The model folder inside a checkpoint, or the folder itself if it is a model."""
    for folder in (checkpoint / "policy", checkpoint):
        if (folder / "config.json").is_file():
            return folder
    reason = "has neither policy/config.json nor config.json" if checkpoint.is_dir() else "no such folder"
    raise UserError(f"CHECKPOINT: {checkpoint}: {reason}; give .../checkpoints/step-N or a model folder")


def _chosen_splits(run: RunConfig, splits: Sequence[str]) -> tuple[str, ...]:
    """The splits asked for, or all of the task's."""
    from cluster.components import build_task
    from rollout.component import nearest

    known = build_task(run).splits
    for split in splits:
        if split not in known:
            raise UserError(f"--split: unknown split {split!r}; {nearest(split, list(known))}")
    return tuple(splits) or tuple(known)


def _failure(run: RunConfig, error: Exception) -> str:
    """What happened, and the file that holds the traceback."""
    file = run.run_dir / "error.txt"
    try:
        file.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    except OSError:
        return str(error)
    return f"{error}\ndetails: {file}"


def _delete_run(run: RunConfig) -> None:
    """Delete the folder of an earlier run; a folder that does not hold a run is left alone."""
    if (run.run_dir / "config.yaml").is_file():
        shutil.rmtree(run.run_dir)


def _write(path: Path, text: str) -> None:
    """Write a file that the user named."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--output: cannot write {path}: {error.strerror}") from error


def _print_step(step: int, num_steps: int, loss: float) -> None:
    """One line every 50 steps of the warm start, and at its end."""
    if step % 50 == 0 or step == num_steps:
        click.echo(f"step {step}/{num_steps}  loss {loss:.3f}")


def _print_lines(lines: Sequence[str]) -> None:
    """Print to standard output."""
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main(prog_name="dvpo")
