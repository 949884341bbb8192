"""Preference pairs in files: rows with a prompt, the answer that is preferred, and the one that is not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rollout.component import nearest
from rollout.tasks.questions import ROLES, BadRow, QuestionOptions, is_chat_as_text, make_example
from rollout.tasks.rows import Row, hint
from rollout.trajectory import Message

COLUMNS = ("prompt", "chosen", "rejected")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePair:
    """Two conversations that begin with the same prompt.

    Attributes:
        prompt: its messages.
        chosen, rejected: what follows the prompt: an answer, or turns of a conversation.
        group: pairs of one prompt share it; they are held out together.
    """

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    group: str


def read_pair(row: Row) -> PreferencePair:
    """The pair in a row: ``prompt``, ``chosen`` and ``rejected``, each a text or a list of messages.

    A list in ``chosen`` or ``rejected`` may begin with the prompt's messages. ``prompt_id`` names the group; by default
    the prompt does. Other columns are not read.

    Raises:
        BadRow: it is not such a row, or both answers are the same.
    """
    if row.problem is not None:
        raise BadRow(row.problem)
    if not isinstance(row.value, dict):
        raise BadRow(f"a row must be an object with {', '.join(map(repr, COLUMNS))}, not {_shown(row.value)}")
    for column in COLUMNS:
        if row.value.get(column) is None:
            empty = f"column {column!r} is null" if column in row.value else f"no column {column!r}"
            raise BadRow(f"{empty}; {hint(column, map(str, row.value), 'the row has')}")
    for column in COLUMNS:
        if is_chat_as_text(row.value[column]):
            raise BadRow(f"column {column!r} holds a chat written as text; it must be the list of messages itself")
    prompt = _prompt(row.value["prompt"])
    chosen, rejected = (_answer(row.value, column, prompt) for column in COLUMNS[1:])
    if chosen == rejected:
        raise BadRow("'chosen' and 'rejected' are the same, so there is nothing to prefer")
    group = row.value.get("prompt_id")
    if group is not None and (isinstance(group, bool) or not isinstance(group, str | int)):
        raise BadRow(f"column 'prompt_id' must be text or a whole number, not {_shown(group)}")
    return PreferencePair(
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        group=str(group) if group is not None else "\n".join(m["content"] for m in prompt),
    )


def _prompt(value: Any) -> tuple[Message, ...]:
    is_chat = isinstance(value, list)
    column = {"prompt_column": None, "messages_column": "prompt"} if is_chat else {"messages_column": None}
    options = QuestionOptions(**column, answer_column=None, id_column=None)
    return make_example({"prompt": value}, options, "").messages


def _answer(row: Mapping[str, Any], column: str, prompt: tuple[Message, ...]) -> tuple[Message, ...]:
    """What follows the prompt in one of the conversations."""
    value = row[column]
    if isinstance(value, str):
        messages: tuple[Message, ...] = ({"role": "assistant", "content": value},)
    elif isinstance(value, list) and value:
        messages = tuple(_message(item, f"{column!r}, message {i}") for i, item in enumerate(value, start=1))
        # Many data sets repeat the prompt in both conversations; it must not be scored twice.
        if messages[: len(prompt)] == prompt:
            messages = messages[len(prompt) :]
    else:
        raise BadRow(f"{column!r} must be text or a list of messages, not {_shown(value)}")
    if all(message["role"] != "assistant" for message in messages):
        raise BadRow(f"{column!r} has no message of the assistant after the prompt")
    for message in messages:
        try:
            message["content"].encode()
        except UnicodeEncodeError as error:  # JSON can spell half a character
            raise BadRow(f"{column!r} has half a character at position {error.start + 1}") from error
    return messages


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict) or not all(isinstance(value.get(key), str) for key in ("role", "content")):
        raise BadRow(f"{where} must be an object with the texts 'role' and 'content', not {_shown(value)}")
    if value["role"] not in ROLES:
        raise BadRow(f"{where}: unknown role {value['role']!r}; {nearest(value['role'], list(ROLES))}")
    return {"role": value["role"], "content": value["content"]}


def _shown(value: Any) -> str:
    return f"{value!r:.60}"
