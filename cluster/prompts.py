"""A configuration's prompts: the endless training sequence, and the held-out ones."""

from __future__ import annotations

from cluster.components import build_task
from cluster.config import RunConfig
from rollout.prompt_source import PromptSource
from rollout.prompts import load_tokenizer, render
from rollout.trajectory import Prompt


def training_prompts(config: RunConfig, tokenizer_path: str) -> PromptSource:
    """The task's training prompts in the order that the run's seed gives them."""
    task = build_task(config)
    tokenizer = load_tokenizer(tokenizer_path, config.model.trust_remote_code)
    prompts = render(tokenizer, task.examples("train"), config.data.task.type, config.rollout.max_prompt_tokens)
    return PromptSource(prompts, config.seed, config.data.shuffle)


def eval_prompts(config: RunConfig, tokenizer_path: str) -> dict[str, list[Prompt]]:
    """The first ``num_eval_prompts`` prompts of each held-out split, in-domain first."""
    task = build_task(config)
    tokenizer = load_tokenizer(tokenizer_path, config.model.trust_remote_code)
    limit, longest = config.training.num_eval_prompts, config.rollout.max_prompt_tokens
    return {
        split: render(tokenizer, task.examples(split)[:limit], config.data.task.type, longest) for split in task.splits
    }
