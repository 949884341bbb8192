"""Questions become prompts: chat template, tokens, order, and the position to resume from."""

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

    if not Path(path).exists() and (path.startswith((".", "/", "~")) or Path(path).parent.is_dir()):
        parent = Path(path).expanduser().parent
        siblings = [str(parent / entry.name) for entry in parent.iterdir()] if parent.is_dir() else []
        hint = f"; {nearest(path, siblings)}" if 0 < len(siblings) <= 50 else ""
        if path.startswith((".", "/", "~")):
            raise UserError(f"model.path: no such folder: {path}{hint}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise UserError(f"model.path: cannot load a tokenizer from {path!r}: {error}") from error
    if not tokenizer.chat_template:
        raise UserError(f"model.path: the tokenizer of {path!r} has no chat template; add one to tokenizer_config.json")
    if tokenizer.eos_token_id is None:
        raise UserError(f"model.path: the tokenizer of {path!r} has no end-of-sequence token")
    return tokenizer


def render(tokenizer: Any, examples: Sequence[Example], task: str) -> list[Prompt]:
    """Apply the chat template, ready for the assistant's turn, and tokenize."""
    texts = [
        tokenizer.apply_chat_template(list(example.messages), tokenize=False, add_generation_prompt=True)
        for example in examples
    ]
    if not texts:
        return []
    rows = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return [
        Prompt(example.example_id, example.messages, tuple(row), example.reference, task, example.extra)
        for example, row in zip(examples, rows, strict=True)
    ]
