"""``dvpo reward-model``: train a reward model on preference pairs, and make such pairs from a task."""

from __future__ import annotations

from pathlib import Path

import click

from cluster.cli.output import print_lines
from cluster.cli.paths import PATH
from cluster.cli.run import CONFIG, OVERRIDES, checked_run
from rollout.component import UserError


@click.group(name="reward-model", short_help="Train a reward model, or make the pairs for it.")
def reward_model() -> None:
    """Train a reward model on preference pairs, or make such pairs from a task.

    A configuration names the result as a reward by {type: model, path: FOLDER}.
    """


@reward_model.command()
@CONFIG
@OVERRIDES
@click.option("--overwrite", is_flag=True, help="Replace an earlier reward model in the output folder.")
def train(config: Path, overrides: tuple[str, ...], overwrite: bool) -> None:
    """Train a reward model as CONFIG says, and measure it on held-out pairs.

    Reads JSONL or Parquet rows with prompt, chosen and rejected; writes a Hugging Face folder with a report beside it.
    One process: for models that one GPU (or a patient CPU) can train.
    """
    from cluster.reward_model.config import load_reward_model_config
    from cluster.reward_model.train import train_reward_model

    source, options = load_reward_model_config(config, overrides)
    try:
        trained = train_reward_model(options, overwrite, _print_step)
    except UserError as error:
        raise UserError(source.locate(str(error))) from error
    print_lines(trained.lines())


def _print_step(step: int, num_steps: int, loss: float) -> None:
    """About twenty lines in all."""
    if step % max(1, num_steps // 20) == 0 or step == num_steps:
        click.echo(f"step {step}/{num_steps}  loss {loss:.4f}")


@reward_model.command(short_help="Sample responses to a task and pair right with wrong ones.")
@CONFIG
@OVERRIDES
@click.option("--output", required=True, type=PATH, help="JSONL file to write.")
@click.option("--num-prompts", default=256, show_default=True, type=click.IntRange(min=1), help="Training prompts.")
@click.option(
    "--samples-per-prompt", default=8, show_default=True, type=click.IntRange(min=2), help="Responses to each of them."
)
@click.option(
    "--pairs-per-prompt", default=1, show_default=True, type=click.IntRange(min=1), help="Most pairs of one prompt."
)
def pairs(
    config: Path,
    overrides: tuple[str, ...],
    output: Path,
    num_prompts: int,
    samples_per_prompt: int,
    pairs_per_prompt: int,
) -> None:
    """Sample responses of the model of CONFIG to its training prompts, score them without noise, and pair those whose
    scores differ.

    CONFIG is a run's; the score is that of reward.gold where it is given, else of reward.functions. Sampling is by the
    rollout workers, with all that a run has: several turns, workers that are replaced.
    """
    from cluster.reward_model.pairs import make_pairs

    run = checked_run(config, overrides)
    print_lines(make_pairs(run, output, num_prompts, samples_per_prompt, pairs_per_prompt).lines())
