"""Questions become prompts: chat template and tokens."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rollout.component import UserError, nearest
from rollout.tasks.base import Example, Task
from rollout.trajectory import Prompt

log = logging.getLogger(__name__)


def load_tokenizer(path: str, trust_remote_code: bool = False, key: str = "model.path") -> Any:
    """The tokenizer of a model folder or hub id; ``key`` is its place in the configuration, for messages.

    Raises:
        UserError: it cannot be loaded, or it has no chat template or end-of-sequence token.
    """
    from transformers import AutoTokenizer

    if not Path(path).exists() and path.startswith((".", "/", "~")):
        parent = Path(path).parent
        siblings = [str(parent / entry.name) for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []
        hint = nearest(path, siblings) if siblings else f"{parent} has no folders"
        raise UserError(f"{key}: no such folder: {path}; {hint}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers raises many kinds for one mistake
        summary = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{key}: cannot load a tokenizer from {path!r}: {summary}") from error
    if not tokenizer.chat_template:
        raise UserError(f"{key}: the tokenizer of {path!r} has no chat template; add one to tokenizer_config.json")
    if tokenizer.eos_token_id is None:
        raise UserError(f"{key}: the tokenizer of {path!r} has no end-of-sequence token")
    return tokenizer


def render(tokenizer: Any, examples: Sequence[Example], task: str) -> list[Prompt]:
    """Apply the chat template, ready for the assistant's turn, and tokenize."""
    if not examples:
        return []
    # Rendered as text first: a template's special tokens are in it, so none may be added when it is tokenized.
    texts = [
        tokenizer.apply_chat_template(list(example.messages), tokenize=False, add_generation_prompt=True)
        for example in examples
    ]
    rows = tokenizer(texts, add_special_tokens=False)["input_ids"]
    prompts = [
        Prompt(
            prompt_id=example.example_id,
            messages=example.messages,
            token_ids=tuple(row),
            reference=example.reference,
            task=task,
            extra=example.extra,
        )
        for example, row in zip(examples, rows, strict=True)
    ]
    num_unknown = sum(tokenizer.unk_token_id in row for row in rows) if tokenizer.unk_token_id is not None else 0
    if num_unknown:
        log.warning("%d of %d prompts have characters that the tokenizer does not know", num_unknown, len(prompts))
    return prompts


def render_split(
    tokenizer: Any, task: Task, split: str, max_prompt_tokens: int, first: int | None = None, name: str = ""
) -> list[Prompt]:
    """The prompts of a split, or of its first questions. What is too long is left out if the task allows it.

    Args:
        first: how many questions are rendered; all by default.
        name: of the task, as the configuration has it.

    Raises:
        UserError: prompts are longer than ``max_prompt_tokens``; the message names the longest and its place.
    """
    examples = task.examples(split)[:first]
    prompts = render(tokenizer, examples, name)
    long = [
        (len(prompt.token_ids), example)
        for prompt, example in zip(prompts, examples, strict=True)
        if len(prompt.token_ids) > max_prompt_tokens
    ]
    if not long:
        return prompts
    limit = f"rollout.max_prompt_tokens: {max_prompt_tokens}"
    reasons = {example.example_id: f"the prompt has {size} tokens, more than {limit}" for size, example in long}
    # The task decides: a data set has somewhere to write them down, a generated task has none.
    if task.leave_out(split, reasons):
        return [prompt for prompt in prompts if prompt.prompt_id not in reasons]
    size, longest = max(long, key=lambda found: found[0])
    raise UserError(
        f"rollout.max_prompt_tokens: {len(long)} of {len(prompts)} prompts of split {split!r} are longer than "
        f"{max_prompt_tokens} tokens; the longest, {longest.place or repr(longest.example_id)}, has {size}"
    )
