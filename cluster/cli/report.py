"""Commands that look at runs afterwards, or while they go on: report, explain, compare, watch."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cluster.cli.output import print_lines
from cluster.cli.paths import PATH, PATH_TEXT
from rollout.component.mistakes import BadArgument


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
        print_lines([json.dumps(explanation(record), indent=2, ensure_ascii=False)])
    else:
        print_lines(explanation_lines(record))


@click.command(short_help="Write a page about one run or several: one file, no network.")
@click.argument("runs", metavar="RUN [RUN ...]", type=PATH_TEXT, nargs=-1, required=True)
@click.option("--output", type=PATH, help="HTML file to write; by default report.html in the folder of the first RUN.")
@click.option("--inspect", type=PATH, help="Write RUN's logged trajectories as a log of Inspect (.eval) instead.")
def report(runs: tuple[str, ...], output: Path | None, inspect: Path | None) -> None:
    """Write one HTML file about RUN: what happened, what looks wrong, curves, and its trajectories token by token.

    Several runs stand side by side: those that differ by the seed only are drawn as one line with its interval. The
    file needs nothing else, not even a network. RUN is a run's folder, or its name in runs/.
    """
    from cluster.report.page.page import write_page
    from cluster.report.run_record import find_run_folder, read_run

    folders = _different([find_run_folder(name) for name in runs])
    if inspect is not None:
        from cluster.report.inspect_log import write_inspect_log

        if len(folders) > 1 or output is not None:
            raise BadArgument("--inspect: is for one RUN, and without --output")
        click.echo(f"{inspect} ({write_inspect_log(read_run(folders[0]), inspect)} trajectories)")
        return
    path = output if output is not None else folders[0] / "report.html"
    size = write_page([read_run(folder) for folder in folders], path)
    click.echo(f"{path} ({size / 1000:.0f} kB)")


@click.command(short_help="Put runs side by side: settings that differ, scores, differences.")
@click.argument("runs", metavar="RUN RUN [...]", type=PATH_TEXT, nargs=-1, required=True)
@click.option(
    "--metric", "metrics", multiple=True, help="Metric to compare; repeatable. Held-out accuracies by default."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with nothing left out.")
def compare(runs: tuple[str, ...], metrics: tuple[str, ...], as_json: bool) -> None:
    """Compare runs: only the settings that differ, final and best scores, and differences to the first RUN.

    Runs that differ by the seed only are one group. Differences are taken between runs of one seed, with intervals over
    seeds where there are several. RUN is a run's folder, or its name in runs/; it may be going on.
    """
    from cluster.report.compare import compare_runs, comparison_lines
    from cluster.report.run_record import find_run_folder, read_run

    if len(runs) < 2:
        raise BadArgument("RUN: name at least two runs to compare")
    found = compare_runs([read_run(folder) for folder in _different([find_run_folder(name) for name in runs])], metrics)
    print_lines([json.dumps(found.as_json(), indent=2, ensure_ascii=False)] if as_json else comparison_lines(found))


@click.command(short_help="Watch a run that goes on, from its folder.")
@click.argument("run", type=PATH_TEXT)
@click.option("--plain", is_flag=True, help="Lines in place of a live display, as where there is no terminal.")
@click.option("--patience", type=click.FloatRange(min=0.0, min_open=True), help="Seconds without a sign of life.")
def watch(run: str, plain: bool, patience: float | None) -> None:
    """Show how RUN goes on, until it ends: progress, phases, rewards, estimated noise, alarms, the last sample.

    RUN is a run's folder, or its name in runs/; it may be on a shared disk. Nothing of it is changed. The exit status
    is 0 if it came to its end or was stopped, 1 if it failed or gave no sign of life for --patience seconds, by default
    somewhat more than its cluster.step_timeout_s.
    """
    from cluster.display.progress import make_progress
    from cluster.report.run_record import find_run_folder, read_settings
    from cluster.report.watch import EXIT_STATUS, Watcher, ending_line, patience_of

    folder = find_run_folder(run)
    patience_s = patience_of(read_settings(folder)) if patience is None else patience
    progress = make_progress("plain" if plain else "auto", with_rollouts=False)
    progress.start()
    try:
        ending = Watcher(folder, progress, patience_s).watch()
    finally:
        progress.finish(())  # after Ctrl-C too, or a live display would stay
    print_lines([ending_line(folder, ending, patience_s)])
    click.get_current_context().exit(EXIT_STATUS[ending])


def _different(folders: list[Path]) -> list[Path]:
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise BadArgument("RUN: a run is named twice")
    return folders
