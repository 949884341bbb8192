"""A configuration's prompts: the endless training sequence, and the held-out ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cluster.config.components import build_task, reward_specs
from cluster.config.run_config import RunConfig
from rollout.component.mistakes import UnknownName, WrongValue
from rollout.data.prompt_source import PromptSource
from rollout.data.prompts import all_splits, load_tokenizer, render_split
from rollout.data.unusable import Draws, objecting_rewards, settle_unusable
from rollout.tasks.base import Example, Task
from rollout.tasks.rows import hint
from rollout.trajectory import Prompt

MAX_CATEGORIES = 50
"""Values of ``evaluation.category`` in one split; each has metrics of its own."""


@dataclass(frozen=True, slots=True)
class RunPrompts:
    """All prompts of a run.

    Attributes:
        training: the training prompts in the order that the run's seed gives them.
        held_out: the first ``num_eval_prompts`` prompts of each held-out split, in-domain first.
        remarks: what the user should know about the data.
        spell: tokens one by one as text, special ones included.
    """

    training: PromptSource
    held_out: dict[str, list[Prompt]]
    remarks: list[str]
    spell: Callable[[Sequence[int]], list[str]]


def settle_rewards(config: RunConfig, task: Task) -> list[str]:
    """Whether the rewards can use the questions; what they cannot use is left out if the task allows it.

    Returns:
        Warnings.

    Raises:
        UserError: see :func:`rollout.data.unusable.settle_unusable`.
    """
    draws = Draws(
        seed=config.seed,
        shuffle=config.data.shuffle,
        prompts_per_step=config.training.prompts_per_step,
        num_steps=config.training.num_steps,
    )
    rewards = objecting_rewards(reward_specs(config))
    return settle_unusable(task, config.reward, rewards, config.data.task.type, draws)


@dataclass(frozen=True, slots=True)
class RenderedPrompts:
    """What every run on a task with a tokenizer has in common, whatever its seed: fields of :class:`RunPrompts`."""

    training: list[Prompt]
    held_out: dict[str, list[Prompt]]
    remarks: list[str]
    spell: Callable[[Sequence[int]], list[str]]

    def for_run(self, config: RunConfig) -> RunPrompts:
        """The prompts of a run with the same data section."""
        source = PromptSource(self.training, config.seed, config.data.shuffle)
        return RunPrompts(source, self.held_out, self.remarks, self.spell)


def render_prompts(config: RunConfig, tokenizer_path: str) -> RenderedPrompts:
    """Read and render every split, whatever part of it is used, so that what is left out is the same in every command.

    Raises:
        UserError: data cannot be read, the rewards cannot use them, or prompts are too long.
    """
    task, name = build_task(config), config.data.task.type
    # Before the prompts are rendered, as in `dvpo check`: the same rows are left out then.
    remarks = settle_rewards(config, task)
    tokenizer = load_tokenizer(tokenizer_path, config.model.trust_remote_code)
    longest, splits = config.rollout.max_prompt_tokens, all_splits(task, name)
    training, *others = [render_split(tokenizer, task, split, longest, name=name) for split in splits]
    limit = config.training.num_eval_prompts
    held_out = {split: prompts[:limit] for split, prompts in zip(splits[1:], others, strict=True)}
    for split, prompts in held_out.items():
        require_categories(config, split, prompts)
    return RenderedPrompts(training, held_out, [*task.remarks(), *remarks], speller(tokenizer))


def require_categories(config: RunConfig, split: str, questions: Sequence[Example | Prompt]) -> None:
    """See whether ``evaluation.category`` sorts the questions of a held-out split.

    Raises:
        UserError: none of them has such a column, or it has too many values to be a category.
    """
    column, asked = config.evaluation.category, questions[: config.training.num_eval_prompts]
    if column is None or not asked:
        return
    found = {str(question.extra[column]) for question in asked if column in question.extra}
    if not found:
        columns = {name for question in asked for name in question.extra}
        raise UnknownName(
            f"evaluation.category: no question of split {split!r} has a column {column!r}; "
            f"{hint(column, columns, 'further columns')}"
        )
    if len(found) > MAX_CATEGORIES:
        raise WrongValue(
            f"evaluation.category: column {column!r} has {len(found)} different values in split {split!r}, more than "
            f"{MAX_CATEGORIES}: it is no category"
        )


def speller(tokenizer: Any) -> Callable[[Sequence[int]], list[str]]:
    """What says tokens one by one. A character that several tokens share comes out as replacement characters."""
    return lambda token_ids: [str(tokenizer.decode([token], skip_special_tokens=False)) for token in token_ids]


def load_prompts(config: RunConfig, tokenizer_path: str) -> RunPrompts:
    """The prompts of a run; raises what :func:`render_prompts` raises."""
    return render_prompts(config, tokenizer_path).for_run(config)
