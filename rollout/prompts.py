"""Questions become prompts: chat template and tokens."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rollout.component import UserError, nearest
from rollout.tasks.base import Example
from rollout.trajectory import Prompt

log = logging.getLogger(__name__)


def load_tokenizer(path: str, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model folder or hub id.

    Raises:
        UserError: it cannot be loaded, or it has no chat template or end-of-sequence token.
    """
    from transformers import AutoTokenizer

    if not Path(path).exists() and path.startswith((".", "/", "~")):
        parent = Path(path).parent
        siblings = [str(parent / entry.name) for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []
        hint = nearest(path, siblings) if siblings else f"{parent} has no folders"
        raise UserError(f"model.path: no such folder: {path}; {hint}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers raises many kinds for one mistake
        summary = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"model.path: cannot load a tokenizer from {path!r}: {summary}") from error
    if not tokenizer.chat_template:
        raise UserError(f"model.path: the tokenizer of {path!r} has no chat template; add one to tokenizer_config.json")
    if tokenizer.eos_token_id is None:
        raise UserError(f"model.path: the tokenizer of {path!r} has no end-of-sequence token")
    return tokenizer


def render(
    tokenizer: Any, examples: Sequence[Example], task: str, max_prompt_tokens: int | None = None
) -> list[Prompt]:
    """Apply the chat template, ready for the assistant's turn, and tokenize.

    Raises:
        UserError: prompts longer than ``max_prompt_tokens``; the message names the longest.
    """
    if not examples:
        return []
    texts = [
        tokenizer.apply_chat_template(list(example.messages), tokenize=False, add_generation_prompt=True)
        for example in examples
    ]
    rows = tokenizer(texts, add_special_tokens=False)["input_ids"]
    prompts = [
        Prompt(example.example_id, example.messages, tuple(row), example.reference, task, example.extra)
        for example, row in zip(examples, rows, strict=True)
    ]
    if max_prompt_tokens is not None:
        _refuse_long(prompts, max_prompt_tokens)
    num_unknown = sum(tokenizer.unk_token_id in row for row in rows) if tokenizer.unk_token_id is not None else 0
    if num_unknown:
        log.warning("%d of %d prompts have characters that the tokenizer does not know", num_unknown, len(prompts))
    return prompts


def _refuse_long(prompts: Sequence[Prompt], max_prompt_tokens: int) -> None:
    long = [prompt for prompt in prompts if len(prompt.token_ids) > max_prompt_tokens]
    if long:
        longest = max(long, key=lambda prompt: len(prompt.token_ids))
        raise UserError(
            f"rollout.max_prompt_tokens: {len(long)} of {len(prompts)} prompts are longer than {max_prompt_tokens} "
            f"tokens; the longest, {longest.prompt_id!r}, has {len(longest.token_ids)}"
        )
