"""``dvpo reward``: test the reward of a configuration on lines whose right verdict is known."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cluster.cli.output import print_lines
from cluster.cli.run import CONFIG, OVERRIDES
from rollout.component import UserError
from rollout.component.mistakes import BadArgument


@click.group(name="reward", short_help="Test a reward on labelled lines.")
def reward() -> None:
    """Test the reward of a configuration on labelled lines."""


@reward.command(name="test", short_help="Compare a reward's verdicts with labels.")
@CONFIG
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@OVERRIDES
@click.option("--gold", "use_gold", is_flag=True, help="Test reward.gold in place of reward.functions.")
@click.option(
    "--threshold", type=float, default=0.5, show_default=True, help="Least score that says that a response is right."
)
@click.option("--show", type=click.IntRange(min=0), default=20, show_default=True, help="Most disagreements listed.")
@click.option("--max-disagreements", type=click.IntRange(min=0), help="Exit with status 1 if there are more.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every disagreement.")
def test(
    config: Path,
    file: Path,
    overrides: tuple[str, ...],
    use_gold: bool,
    threshold: float,
    show: int,
    max_disagreements: int | None,
    as_json: bool,
) -> None:
    """Run the reward of CONFIG on the lines of FILE and compare its verdicts with their labels.

    FILE is JSONL: response, reference (or the data set's answer column) and label (true or false), and whatever else
    the reward reads; docs/rewards.md has all columns. Nothing is started, and no noise is added. Shows the confusion,
    rates with intervals, what was read as the answer where verdict and label differ, and the slowest calls.
    """
    from cluster.config.run_config import parse_config
    from cluster.config.yaml_source import read_source
    from cluster.reward_test.scoring import run_reward_test

    source = read_source(config, overrides)
    run = parse_config(source)
    if use_gold and not run.reward.gold:
        raise BadArgument(f"--gold: {config} has no reward.gold to test")
    try:
        report = run_reward_test(run, file, "gold" if use_gold else "functions", threshold)
    except UserError as error:
        raise UserError(source.locate(str(error))) from error
    print_lines([json.dumps(report.to_json(), indent=2, ensure_ascii=False)] if as_json else list(report.lines(show)))
    if max_disagreements is not None and len(report.disagreements) > max_disagreements:
        click.get_current_context().exit(1)
