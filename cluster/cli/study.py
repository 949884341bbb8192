"""The command that runs a grid of runs and reports on it."""

from __future__ import annotations

from pathlib import Path

import click

from cluster.cli.output import RunFailed, print_lines
from cluster.cli.paths import PATH


@click.command(short_help="Run a grid of methods, tasks, noise and seeds.")
@click.argument("config", metavar="CONFIG", type=PATH)
@click.option("--plan", "only_plan", is_flag=True, help="Check everything, print the cells, and stop.")
@click.option("--report", "only_report", is_flag=True, help="Write report.md from what has been measured, and stop.")
@click.option("--retry", is_flag=True, help="Run cells that failed once more.")
def study(config: Path, only_plan: bool, only_report: bool, retry: bool) -> None:
    """Run every cell of the study CONFIG that has no result yet: algorithm x task x noise x seed.

    A cell is done when its line is in cells.jsonl in the study's folder; after a kill the same command goes on. A cell
    that fails is recorded with its error, and the others go on; the exit status is then 1.
    """
    from cluster.study.cells import plan_cells
    from cluster.study.config import load_study

    loaded = load_study(config)
    cells = plan_cells(loaded, config)
    if only_report:
        from cluster.study.report import write_report
        from cluster.study.results import require_same_study

        click.echo(write_report(loaded, require_same_study(Path(loaded.output), cells)))
        return
    from cluster.study.check import check_cells

    for warning in check_cells(loaded, cells, config):
        click.echo(f"warning: {warning}", err=True)
    if only_plan:
        from cluster.study.plan import plan_lines

        print_lines(plan_lines(loaded, cells))
        return
    from cluster.study.runner import run_study

    failed = run_study(loaded, cells, click.echo, retry)
    if failed:
        raise RunFailed(f"{failed} cells failed; --retry runs them once more")
