"""Questions become prompts: chat template and tokens."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rollout.component import nearest, user_code
from rollout.component.mistakes import ChatTemplate, ModelFiles, NotFound, PromptTooLong
from rollout.tasks.base import Example, Task
from rollout.trajectory import Prompt

log = logging.getLogger(__name__)

CHARS_PER_TOKEN = 64
"""A text with more for each token that is allowed is judged by its beginning: to tokenize 50 MB takes minutes."""
LONGEST_TOKEN = 1024
"""Characters. No vocabulary has longer ones; a longer word that a tokenizer does not know counts as several tokens."""
QWEN_TOKENIZERS = {(model_type, "Qwen2Tokenizer") for model_type in ("qwen2_moe", "qwen3", "qwen3_moe")}
"""Models and the names of their tokenizers for which transformers takes its ``Qwen2Tokenizer``."""


def load_tokenizer(path: str, trust_remote_code: bool = False, key: str = "model.path") -> Any:
    """The tokenizer of a model folder or hub id; ``key`` is its place in the configuration, for messages.

    Raises:
        UserError: it cannot be loaded, or it has no chat template or end-of-sequence token.
    """
    if not Path(path).exists() and path.startswith((".", "/", "~")):
        parent = Path(path).parent
        siblings = [str(parent / entry.name) for entry in parent.iterdir() if entry.is_dir()] if parent.is_dir() else []
        hint = nearest(path, siblings) if siblings else f"{parent} has no folders"
        raise NotFound(f"{key}: no such folder: {path}; {hint}")
    try:
        tokenizer = _tokenizer_class(Path(path)).from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers raises many kinds for one mistake
        summary = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelFiles(f"{key}: cannot load a tokenizer from {path!r}: {summary}") from error
    if not tokenizer.chat_template:
        raise ChatTemplate(f"{key}: the tokenizer of {path!r} has no chat template; add one to tokenizer_config.json")
    if tokenizer.eos_token_id is None:
        raise ModelFiles(f"{key}: the tokenizer of {path!r} has no end-of-sequence token")
    return tokenizer


def _tokenizer_class(folder: Path) -> Any:
    """``AutoTokenizer``, or the class that it would choose, where that is certain.

    To choose it imports torch and the configurations of all models: four seconds and a quarter of a GiB, for which the
    controller, which only reads and spells prompts, has no other use.
    """
    with suppress(OSError, ValueError, AttributeError):
        model_type = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        named = str(config.get("tokenizer_class", "")).removesuffix("Fast")
        # What tokenizers of Qwen 2 call themselves on the hub is known to be wrong, and transformers ignores it.
        if "auto_map" not in config and (model_type == "qwen2" or (model_type, named) in QWEN_TOKENIZERS):
            from transformers import Qwen2Tokenizer

            return Qwen2Tokenizer
    from transformers import AutoTokenizer

    return AutoTokenizer


def all_splits(task: Task, name: str) -> tuple[str, ...]:
    """``train`` and the held-out splits of a task that may be the user's own; raises what :func:`questions` does."""
    return user_code("data.task", f"while {name!r} named its splits", lambda: ("train", *task.splits))


def questions(task: Task, split: str, name: str) -> Sequence[Example]:
    """The questions of a split, of a task that may be the user's own.

    Args:
        name: of the task, as the configuration has it.

    Raises:
        UserError: the task says what is wrong, or its code raises something else.
    """
    doing = f"while {name!r} gave its questions of split {split!r}"
    return user_code("data.task", doing, lambda: task.examples(split))


def render(tokenizer: Any, examples: Sequence[Example], task: str) -> list[Prompt]:
    """Apply the chat template, ready for the assistant's turn, and tokenize.

    Raises:
        UserError: the template refuses a question's messages.
    """
    texts, refused = _texts(tokenizer, examples)
    if refused:
        raise ChatTemplate(_refused(tokenizer, examples, refused, ""))
    return _tokenized(tokenizer, examples, texts, task)


def _texts(tokenizer: Any, examples: Sequence[Example]) -> tuple[list[str], dict[str, str]]:
    """What the chat template makes of the questions, and what it says of those that it refuses, by example id."""
    texts, refused = [], {}
    for example in examples:
        messages = list(example.messages)
        try:
            texts.append(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
        except Exception as error:  # of jinja2, or what a template raises itself
            refused[example.example_id] = " ".join(str(error).split()) or type(error).__name__
    return texts, refused


def _refused(tokenizer: Any, examples: Sequence[Example], refused: Mapping[str, str], of_split: str) -> str:
    """The message about questions that the chat template refuses."""
    first = next(example for example in examples if example.example_id in refused)
    roles = [message["role"] for message in first.messages]
    hint = "; a system message may be from data.task.system_prompt" if "system" in roles else ""
    return (
        f"model.path: the chat template of {tokenizer.name_or_path!r} refuses {len(refused)} of {len(examples)} prompts"
        f"{of_split}; the first, {first.place or repr(first.example_id)}, has the roles {', '.join(roles)}, and the "
        f"template says: {refused[first.example_id]}{hint}"
    )


def _tokenized(tokenizer: Any, examples: Sequence[Example], texts: list[str], task: str) -> list[Prompt]:
    """The prompts whose chat template has given ``texts``."""
    if not examples:
        return []
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


def _least_tokens(tokenizer: Any, text: str, most: int) -> int:
    """Tokens that a huge text has at least, if its beginning alone has far more than ``most``; 0 if it has to be read.

    Where the beginning ends, tokens may differ from those of the whole; hence twice as many are asked for.
    """
    if len(text) <= CHARS_PER_TOKEN * (most + 1):
        return 0
    beginning = tokenizer(text[: CHARS_PER_TOKEN * (most + 1)], add_special_tokens=False)["input_ids"]
    least = max(len(beginning) // 2, len(text) // LONGEST_TOKEN)
    return least if least > most else 0


def render_split(
    tokenizer: Any, task: Task, split: str, max_prompt_tokens: int, first: int | None = None, name: str = ""
) -> list[Prompt]:
    """The prompts of a split, or of its first questions.

    What is too long, or refused by the chat template, is left out if the task allows it.

    Args:
        first: how many questions are rendered; all by default.
        name: of the task, as the configuration has it.

    Raises:
        UserError: the chat template refuses prompts, with the first one and its place; or prompts are longer than
            ``max_prompt_tokens``, with the longest one and its place.
    """
    examples = questions(task, split, name or task.name)[:first]
    texts, refused = _texts(tokenizer, examples)
    if refused:
        why = {example_id: f"the chat template of model.path says: {words}" for example_id, words in refused.items()}
        if not task.leave_out(split, why):
            raise ChatTemplate(_refused(tokenizer, examples, refused, f" of split {split!r}"))
        examples = [example for example in examples if example.example_id not in refused]
    huge = [_least_tokens(tokenizer, text, max_prompt_tokens) for text in texts]
    fit = [index for index, least in enumerate(huge) if not least]
    prompts = _tokenized(tokenizer, [examples[index] for index in fit], [texts[index] for index in fit], name)
    long = [(least, f"at least {least}", example) for least, example in zip(huge, examples, strict=True) if least]
    sizes = [len(prompt.token_ids) for prompt in prompts]
    long += [(size, f"{size}", examples[i]) for i, size in zip(fit, sizes, strict=True) if size > max_prompt_tokens]
    if not long:
        return prompts
    limit = f"rollout.max_prompt_tokens: {max_prompt_tokens}"
    reasons = {example.example_id: f"the prompt has {size} tokens, more than {limit}" for _, size, example in long}
    # The task decides: a data set has somewhere to write them down, a generated task has none.
    if task.leave_out(split, reasons):
        return [prompt for prompt in prompts if prompt.prompt_id not in reasons]
    _, size, longest = max(long, key=lambda found: found[0])
    raise PromptTooLong(
        f"rollout.max_prompt_tokens: {len(long)} of {len(examples)} prompts of split {split!r} are longer than "
        f"{max_prompt_tokens} tokens; the longest, {longest.place or repr(longest.example_id)}, has {size}"
    )
