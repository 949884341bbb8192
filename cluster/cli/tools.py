"""Commands beside training: init, schema, doctor, warmstart, ledger."""

from __future__ import annotations

import json
from pathlib import Path

import click

from actors.ledger.errors import LedgerError
from actors.ledger.samples import SampleState
from cluster.cli.output import RunFailed, print_lines
from cluster.cli.paths import PATH, PATH_TEXT
from cluster.config.starter.starter import KINDS, MODEL, write_project
from rollout.component.errors import coded
from rollout.component.mistakes import NotWritable, UnknownName

STATES = [state.value for state in SampleState]


@click.command(short_help="Write a commented project to begin with.")
@click.argument("folder", metavar="FOLDER", type=PATH)
@click.option("--kind", type=click.Choice(list(KINDS)), default="own", show_default=True, help="What it is about.")
@click.option("--model", default=MODEL, show_default=True, help="Folder or hub id of the starting model.")
def init(folder: Path, kind: str, model: str) -> None:
    """Write a project into FOLDER: a configuration, a reward or an environment, a sample of data, and a README.

    math: word problems with a number as the answer. qa: questions with choices. dialogue: several turns with a
    simulated customer. own: prompts and a reward of your own.
    """
    here = Path(model)
    # The project is used in its own folder, so a path from here would be another one there.
    found = str(here.resolve()) if here.is_dir() else model
    for path in write_project(folder, kind, found):
        click.echo(path)
    click.echo(f"next: cd {folder} && dvpo check config.yaml")


@click.command(short_help="Print the JSON Schema of the configuration.")
@click.option("--output", type=PATH, help="File to write; standard output by default.")
def schema(output: Path | None) -> None:
    """Print the JSON Schema of the configuration, so that editors complete and check it.

    In VS Code or any editor with a YAML language server, put this on a file's first line:

        # yaml-language-server: $schema=dvpo.schema.json
    """
    from cluster.config.schema import build_schema

    text = json.dumps(build_schema(), indent=2)
    if output is None:
        click.echo(text)
    else:
        _write(output, text + "\n")


@click.command(short_help="Show versions, devices, memory, ports, and what to put right.")
@click.option("--quick", is_flag=True, help="Do not try to import torch, Ray, DeepSpeed and vLLM.")
def doctor(quick: bool) -> None:
    """Show what is installed, what this machine offers, and what to put right. Exit status 1 if a run cannot work."""
    from cluster.check.doctor import Level, examine, report_lines

    findings = examine(with_imports=not quick)
    print_lines(report_lines(findings))
    if any(finding.level is Level.ERROR for finding in findings):
        click.get_current_context().exit(1)


@click.command(short_help="Make a small starting model for a task.")
@click.option("--task", default="chain", show_default=True, help="Built-in task, or 'package.module:Class'.")
@click.option(
    "--output",
    type=PATH,
    help="Folder to write; by default models/demo for the chain task and models/TASK for others.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="First weights and corpus.")
@click.option("--num-steps", type=click.IntRange(min=1), help="Optimiser steps; the default suits the task.")
def warmstart(task: str, output: Path | None, seed: int, num_steps: int | None) -> None:
    """Make a small starting model for a task that has demonstrations.

    It imitates imperfect demonstrations until it is right about half of the time, so that training has something to
    improve. Takes a minute or two on two CPU cores.
    """
    from cluster.warmstart.warmstart import WarmstartConfig
    from cluster.warmstart.warmstart import warmstart as make_model
    from rollout.component import ComponentSpec, build
    from rollout.tasks import TASKS
    from rollout.tasks.base import Task

    built = build(ComponentSpec(type=task), TASKS, Task, "--task")
    options = {**built.warmstart_options(), "seed": seed, **({} if num_steps is None else {"num_steps": num_steps})}
    folder = output or Path("models", "demo" if built.name == "chain" else built.name)
    try:
        report = make_model(built, folder, WarmstartConfig.model_validate(options), _print_step)
    # What the base class of tasks raises where there are no demonstrations.
    except NotImplementedError as error:
        raise UnknownName(f"--task: {error}, so no starting model can be made for it") from error
    print_lines(
        [
            f"{report.path}: {report.num_parameters:,} parameters, loss {report.loss:.3f}, {report.seconds:.0f} s",
            *(
                f"greedy {name} on held-out questions: {'  '.join(f'{split} {x:.3f}' for split, x in by_split.items())}"
                for name, by_split in report.metrics.items()
            ),
        ]
    )


@click.command(short_help="Show what became of each sample of a run, and prove it.")
@click.argument("run", type=PATH_TEXT)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with nothing left out.")
@click.option("--list", "state", metavar="STATE", type=click.Choice(STATES), help=f"List samples: {', '.join(STATES)}.")
def ledger(run: str, as_json: bool, state: str | None) -> None:
    """Show what became of each sample of RUN, and prove that none was lost or trained on twice.

    RUN is a run's folder, or its name in runs/. It may be going on; nothing of it is changed. The exit status is 1 if
    the ledger does not balance.
    """
    from actors.ledger.report import build_report, find_run, read_list
    from actors.ledger.text import report_lines

    folder = find_run(run)
    try:
        if state is not None:
            samples = read_list(folder, SampleState(state))
            for line in [json.dumps(samples, indent=2)] if as_json else [row["trajectory_id"] for row in samples]:
                click.echo(line)
            return
        report = build_report(folder)
    except LedgerError as error:
        raise RunFailed(coded(str(error), error.code)) from error
    print_lines([json.dumps(report.as_json(), indent=2)] if as_json else report_lines(report))
    if report.violations:
        click.get_current_context().exit(1)


def _write(path: Path, text: str) -> None:
    """Write a file that the user named."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise NotWritable(f"--output: cannot write {path}: {error.strerror}") from error


def _print_step(step: int, num_steps: int, loss: float) -> None:
    """One line every 50 steps of the warm start, and at its end."""
    if step % 50 == 0 or step == num_steps:
        click.echo(f"step {step}/{num_steps}  loss {loss:.3f}")
