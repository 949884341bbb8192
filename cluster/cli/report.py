"""Commands that look at runs afterwards, or while they go on: explain."""

from __future__ import annotations

import json

import click

from cluster.cli.output import print_lines
from cluster.cli.paths import PATH_TEXT


@click.command(short_help="Say what happened in a run, what looks wrong, and what to do.")
@click.argument("run", type=PATH_TEXT)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with nothing left out.")
def explain(run: str, as_json: bool) -> None:
    """Say what happened in RUN, and name what looks wrong, with the evidence and the next command.

    RUN is a run's folder, or its name in runs/. It may be going on; nothing of it is changed. The exit status is 0
    whatever is found.
    """
    from cluster.report.explanation import explanation, explanation_lines
    from cluster.report.run_record import find_run_folder, read_run

    record = read_run(find_run_folder(run))
    if as_json:
        click.echo(json.dumps(explanation(record), indent=2, ensure_ascii=False))
    else:
        print_lines(explanation_lines(record))
