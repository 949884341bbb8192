"""Commands of a cluster: submit, jobs, stop, status, scale."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actors.ledger.report import find_run
from actors.recording.safe_text import safe
from actors.recording.scale_order import write_order
from cluster.cli.output import print_lines
from cluster.cli.paths import PATH, PATH_TEXT
from cluster.cli.run import CONFIG, OVERRIDES, checked_run
from cluster.display.report import format_table
from rollout.component.mistakes import NotWritable, Unreadable

if TYPE_CHECKING:
    from cluster.api.jobs import Job

ADDRESS = click.option(
    "--address", metavar="HOST[:PORT]", help="Ray's dashboard; by default RAY_ADDRESS, or port 8265 of this machine."
)
STOP_MARGIN_S = 30.0
CONFIGURED, MOST_ROLLOUTS = "config", 4096
SHOWN_LINES = 5
RATES = {
    "rollout/tokens_per_s": "tokens a second",
    "time/step_s": "seconds a step",
    "reward/observed_mean": "observed score",
    "reward/clean_mean": "clean score",
}


@click.command(short_help="Send a run to a Ray cluster as a job.")
@CONFIG
@OVERRIDES
@ADDRESS
@click.option("--follow", is_flag=True, help="Show what it prints until it ends, and end with its exit status.")
@click.option("--working-dir", type=PATH, default=Path(), help="Folder that is shipped with it; here by default.")
@click.option("--resume", type=PATH_TEXT, is_flag=False, flag_value="auto", metavar="[auto|PATH]", help="As of train.")
@click.option("--stop-wait", type=click.IntRange(min=1), default=300, show_default=True, help="Seconds to stop in.")
def submit(
    config: Path,
    overrides: tuple[str, ...],
    address: str | None,
    follow: bool,
    working_dir: Path,
    resume: str | None,
    stop_wait: int,
) -> None:
    """Check CONFIG and train it as a job of a Ray cluster, with the files of this folder.

    Ctrl-C ends the following, not the job. A job that is stopped has --stop-wait seconds to write a checkpoint.
    """
    from cluster.api.jobs import Jobs

    jobs = Jobs(address)
    os.environ["RAY_ADDRESS"] = jobs.address  # the run joins that cluster, so this machine need not hold it
    run = checked_run(config, overrides, resume)
    job = jobs.submit(run, config, overrides, working_dir, resume, stop_wait)
    print_lines([f"submitted {job.job_id}; its run's folder is {job.folder}"])
    if not follow:
        print_lines([f"next: dvpo status {job.job_id}, dvpo stop {job.job_id}"])
        return
    ended = jobs.follow(job, lambda text: click.echo(safe(text), nl=False))
    _tell_end(ended)
    click.get_current_context().exit(ended.status)


@click.command(short_help="List the jobs of dvpo on a Ray cluster.")
@ADDRESS
def jobs(address: str | None) -> None:
    """List the jobs of dvpo that a cluster knows, oldest first."""
    from cluster.api.jobs import Jobs

    found = Jobs(address).all()
    if not found:
        print_lines(["no jobs of dvpo"])
    for job in found:
        began = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.started)) if job.started else "-"
        print_lines([f"{job.job_id:32} {job.state:10} {began:17} {job.run:20} {job.folder}"])


@click.command(short_help="Stop a job, after a checkpoint.")
@click.argument("name", metavar="JOB|RUN")
@ADDRESS
def stop(name: str, address: str | None) -> None:
    """Stop a job, or the newest job of a run, and wait until it has ended. It writes a checkpoint first."""
    from cluster.api.jobs import STOP_WAIT_S, Jobs

    cluster = Jobs(address)
    job = cluster.get(name)
    if not job.is_over:
        cluster.stop(job)
        job = cluster.wait(job, STOP_WAIT_S + STOP_MARGIN_S)
    _tell_end(job)
    click.get_current_context().exit(0 if job.is_over else 1)


@click.command(short_help="Show where a run stands: state, step, rates, what it waits for.")
@click.argument("name", metavar="RUN|JOB", type=PATH_TEXT)
@ADDRESS
def status(name: str, address: str | None) -> None:
    """Show where a run stands. RUN is a folder or a name in runs/; with --address, a job or a run on a cluster.

    What the run's folder says is shown where it can be seen from here; else what the job has printed last. Exit status
    1 if the run has failed.
    """
    if address is None:
        print_lines(format_table(_folder_rows(find_run(name))))
        return
    from cluster.api.jobs import Jobs

    cluster = Jobs(address)
    job = cluster.get(name)
    rows = [("job", job.job_id), ("state", _state(job))]
    folder = Path(job.folder)
    if (folder / "status.json").is_file():
        print_lines(format_table([*rows, *_folder_rows(folder)]))
    else:
        print_lines(format_table(rows))
        print_lines([safe(line) for line in cluster.last_lines(job, SHOWN_LINES)])
    click.get_current_context().exit(1 if job.state == "FAILED" else 0)


class Number(click.ParamType[int | str]):
    """A number of workers, or ``config``."""

    name = "N|config"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """See click."""
        if value == CONFIGURED:
            return CONFIGURED
        if not (str(value).isdecimal() and 1 <= int(value) <= MOST_ROLLOUTS):
            self.fail(f"{value!r} is neither a number from 1 to {MOST_ROLLOUTS} nor {CONFIGURED!r}", param, ctx)
        return int(value)


@click.command(short_help="Give a run more or fewer rollout workers while it goes on.")
@click.argument("name", metavar="RUN|JOB", type=PATH_TEXT)
@click.option("--rollouts", type=Number(), required=True, help="How many, or 'config' for what the configuration says.")
@ADDRESS
def scale(name: str, rollouts: int | str, address: str | None) -> None:
    """Have so many rollout workers from now on, also after --resume: more as hosts have room, fewer when they are done.

    RUN is a folder or a name in runs/; with --address, a job or a run on a cluster. What is sampled, trained on and
    learned does not depend on the number. `dvpo status` and events.jsonl show what becomes of it.
    """
    number = rollouts if isinstance(rollouts, int) else None
    if address is None:
        _order(find_run(name), number)
    else:
        from cluster.api.jobs import Jobs

        cluster = Jobs(address)
        job = cluster.get(name)
        if (Path(job.folder) / "config.yaml").is_file():
            _order(Path(job.folder), number)
        else:  # the folder is the cluster's
            cluster.run(["scale", job.folder, "--rollouts", str(rollouts)])
    print_lines([f"{name}: rollout workers wanted: {number or 'as configured'}"])


def _order(folder: Path, number: int | None) -> None:
    try:
        write_order(folder, number)
    except OSError as error:
        raise NotWritable(f"RUN: {folder} cannot be written: {error.strerror}") from error


def _folder_rows(folder: Path) -> list[tuple[str, str]]:
    """State of a run from its folder, which may be of another machine."""
    try:
        found: dict[str, Any] = json.loads((folder / "status.json").read_text(encoding="utf-8"))
        now, stages = float(found["time"]), found["stages"]
        doing = [f"{stage['name']} for {now - stage['since']:.0f} s" for stage in stages]
        quiet = now - float(found["last_progress"])
        rows = [("folder", str(folder)), ("step", str(found["step"])), ("now", ", ".join(doing) or "nothing")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unreadable(f"{folder}/status.json: cannot be read: {error}") from error
    rows.append(("told", f"{max(0.0, time.time() - now):.0f} s ago; something got done {max(0.0, quiet):.0f} s before"))
    last: dict[str, Any] = {}
    with suppress(OSError, ValueError, IndexError):
        last = json.loads((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    rows += [(label, f"{last[key]:.4g}") for key, label in RATES.items() if last.get(key) is not None]
    return rows


def _state(job: Job) -> str:
    return f"{job.state.lower()}" + (f" (exit status {job.exit_status})" if job.exit_status else "")


def _tell_end(job: Job) -> None:
    why = f": {job.message}" if job.state == "FAILED" and job.message else ""
    click.echo(safe(f"{job.job_id}: {_state(job)}{why}"), err=True)
