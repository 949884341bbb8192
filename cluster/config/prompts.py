"""A configuration's prompts: the endless training sequence, and the held-out ones."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.config.components import build_task
from cluster.config.run_config import RunConfig
from rollout.data.prompt_source import PromptSource
from rollout.data.prompts import load_tokenizer, render_split
from rollout.trajectory import Prompt


@dataclass(frozen=True, slots=True)
class RunPrompts:
    """All prompts of a run.

    Attributes:
        training: the training prompts in the order that the run's seed gives them.
        held_out: the first ``num_eval_prompts`` prompts of each held-out split, in-domain first.
        remarks: what the user should know about the data.
    """

    training: PromptSource
    held_out: dict[str, list[Prompt]]
    remarks: list[str]


@dataclass(frozen=True, slots=True)
class RenderedPrompts:
    """What every run on a task with a tokenizer has in common, whatever its seed: fields of :class:`RunPrompts`."""

    training: list[Prompt]
    held_out: dict[str, list[Prompt]]
    remarks: list[str]

    def for_run(self, config: RunConfig) -> RunPrompts:
        """The prompts of a run with the same data section."""
        source = PromptSource(self.training, config.seed, config.data.shuffle)
        return RunPrompts(source, self.held_out, self.remarks)


def render_prompts(config: RunConfig, tokenizer_path: str) -> RenderedPrompts:
    """Read and render every split, whatever part of it is used, so that what is left out is the same in every command.

    Raises:
        UserError: data cannot be read, or prompts are too long.
    """
    task = build_task(config)
    tokenizer = load_tokenizer(tokenizer_path, config.model.trust_remote_code)
    longest, name = config.rollout.max_prompt_tokens, config.data.task.type
    training, *others = [render_split(tokenizer, task, split, longest, name=name) for split in ("train", *task.splits)]
    limit = config.training.num_eval_prompts
    held_out = {split: prompts[:limit] for split, prompts in zip(task.splits, others, strict=True)}
    return RenderedPrompts(training, held_out, task.remarks())


def load_prompts(config: RunConfig, tokenizer_path: str) -> RunPrompts:
    """The prompts of a run; raises what :func:`render_prompts` raises."""
    return render_prompts(config, tokenizer_path).for_run(config)
