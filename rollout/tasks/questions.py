"""From a row of a data file to a question: which columns are read, and what is a bad row."""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from contextlib import suppress
from decimal import Decimal
from typing import Any

from pydantic import Field, model_validator

from rollout.component import StrictModel, nearest
from rollout.tasks.base import Example
from rollout.tasks.json_values import NoJsonForm, json_value
from rollout.tasks.rows import hint
from rollout.trajectory import Message

ROLES = ("system", "user", "assistant", "tool")
CHAT_KEYS = ({"role", "content"}, {"from", "value"})
"""Keys of a message in the formats that are in use; only the first is read."""
CHAT_KEY = re.compile(r"""["'](?:role|from)["']""")
LARGEST_EXACT = 2.0**53
"""Up to here a float holds every whole number, so its digits are those that were meant."""


class BadRow(Exception):
    """What is wrong with a row, without its place."""


class QuestionOptions(StrictModel):
    """Which columns make a question."""

    prompt_column: str | None = Field("prompt", description="Column with the question as text; null: not used.")
    messages_column: str | None = Field("messages", description="Column with the question as chat; null: not used.")
    answer_column: str | None = Field("answer", description="Column with the reference answer; null: not used.")
    id_column: str | None = Field(
        "id", description="Column with ids, unique in a split; a row without one is called FILE:ROW. null: not used."
    )
    require_answer: bool = Field(False, description="Whether a row without an answer is a bad row.")
    system_prompt: str | None = Field(
        None, min_length=1, description="System message of every question that does not bring its own."
    )

    @model_validator(mode="after")
    def _columns(self) -> QuestionOptions:
        columns = [self.prompt_column, self.messages_column, self.answer_column, self.id_column]
        used = [column for column in columns if column is not None]
        if self.prompt_column is None and self.messages_column is None:
            raise ValueError("prompt_column and messages_column are both null; a question needs one of them")
        if len(set(used)) < len(used):
            raise ValueError(f"two of the column options name the same column; they are {', '.join(used)}")
        if self.require_answer and self.answer_column is None:
            raise ValueError("require_answer: true needs an answer_column, which is null")
        return self


def make_example(row: Any, options: QuestionOptions, default_id: str) -> Example:
    """The question in a row.

    Args:
        row: column name -> value, or whatever stood in the file instead.
        default_id: used if the row has no id.

    Raises:
        BadRow: a column is missing, of the wrong type or empty, the chat is not one, or a further column has a value
            that JSON has no form for.
    """
    if not isinstance(row, dict):
        raise BadRow(f"a row must be an object with named columns, not {_kind(row)}")
    messages = _messages(row, options)
    reference = None if options.answer_column is None else _reference(row, options.answer_column)
    if reference is None and options.require_answer:
        raise BadRow(_lacks(row, options.answer_column or ""))
    used = {options.prompt_column, options.messages_column, options.answer_column, options.id_column}
    extra = {name: _further(value, name) for name, value in row.items() if name not in used}
    return Example(
        example_id=_id(row, options.id_column) or default_id, messages=messages, reference=reference, extra=extra
    )


def worked_example(row: Any, options: QuestionOptions, response_column: str) -> tuple[Message, ...]:
    """A question and its response as turns, without a system message.

    Args:
        response_column: holds the response; where it is absent the answer is the response.

    Raises:
        BadRow: see :func:`make_example`, or there is no response.
    """
    example = make_example(row, options, "")
    said = row.get(response_column)
    response = example.reference if said is None else _text(said, f"column {response_column!r}")
    if response is None:
        raise BadRow(_lacks(row, response_column, options.answer_column or "answer"))
    turns = (message for message in example.messages if message["role"] != "system")
    return (*turns, {"role": "assistant", "content": response})


def after_system(messages: tuple[Message, ...], shots: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages with worked examples before the first that is no system message."""
    first = next(index for index, message in enumerate(messages) if message["role"] != "system")
    return (*messages[:first], *shots, *messages[first:])


def _further(value: Any, column: str) -> Any:
    try:
        return json_value(value)
    except NoJsonForm as error:
        raise BadRow(f"column {column!r} {error}; convert it, or leave the column out") from error


def _id(row: dict[str, Any], column: str | None) -> str | None:
    value = None if column is None else as_written(row.get(column))
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadRow(f"column {column!r} must be text or a whole number, not {_kind(value)}")
    return _text(str(value), f"column {column!r}")


def as_written(value: Any) -> Any:
    """A whole number that is stored as a fraction is itself again: a column with a gap turns all of its 5 into 5.0."""
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST_EXACT
    return int(value) if is_whole else value


def _reference(row: dict[str, Any], column: str) -> str | None:
    value = as_written(row.get(column))
    if value is None:
        return None
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number and not isinstance(value, str):
        raise BadRow(f"column {column!r} must be text or a finite number, not {_kind(value)}")
    return _text(format(value, "f") if isinstance(value, Decimal) else str(value), f"column {column!r}")


def _messages(row: dict[str, Any], options: QuestionOptions) -> tuple[Message, ...]:
    columns = [column for column in (options.prompt_column, options.messages_column) if column is not None]
    filled = [column for column in columns if row.get(column) is not None]
    if not filled:
        raise BadRow(_lacks(row, *columns))
    # Which one counts cannot be guessed, and the other would be lost without a word.
    if len(filled) > 1:
        raise BadRow(
            f"both columns {filled[0]!r} and {filled[1]!r} are filled; set one of prompt_column, "
            "messages_column to null"
        )
    column, value = filled[0], row[filled[0]]
    if column == options.messages_column:
        found = _chat(value, f"column {column!r}")
    elif isinstance(value, list):
        raise BadRow(
            f"column {column!r} must be text, not a list; if it is a chat, set prompt_column: null and "
            f"messages_column: {column}"
        )
    elif is_chat_as_text(value):
        raise BadRow(
            f"column {column!r} holds a chat written as text ({value.strip()!r:.60}); to ask it as a chat, set "
            f"prompt_column: null and messages_column: {column}; to ask this very text, put it into a message"
        )
    else:
        found = ({"role": "user", "content": _text(value, f"column {column!r}")},)
    if options.system_prompt is None or found[0]["role"] == "system":
        return found
    return ({"role": "system", "content": options.system_prompt}, *found)


def is_chat_as_text(value: Any) -> bool:
    """Whether a value is text that shows a chat, as JSON or as Python prints one.

    A chat is a message or a list of them, also under the key ``messages``, with the keys of the usual formats.
    """
    # Nearly all texts are told apart without being parsed.
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{") or not CHAT_KEY.search(value):
        return False
    found = _parsed(value.strip())
    if isinstance(found, dict):
        found = found.get("messages", [found])
    messages = found if isinstance(found, list) else []
    return bool(messages) and all(isinstance(m, dict) and any(keys <= m.keys() for keys in CHAT_KEYS) for m in messages)


def _parsed(text: str) -> Any:
    """What a text means as JSON, or else as a Python literal; None if it is neither."""
    for parse in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's parser warns of what is no text of its kind
            return parse(text)
    return None


def _chat(value: Any, where: str) -> tuple[Message, ...]:
    if isinstance(value, str):  # JSON in a text column, as data sets have it that were a table of texts once
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise BadRow(
                f"{where} must be a list of messages, not {_kind(value)}; as text it has to be JSON"
            ) from error
    if not isinstance(value, list):
        raise BadRow(f"{where} must be a list of messages, not {_kind(value)}")
    if not value:
        raise BadRow(f"{where} is an empty list; it must end with a message of the user")
    messages = tuple(_message(message, f"{where}, message {index}") for index, message in enumerate(value, start=1))
    roles = [message["role"] for message in messages]
    if "user" not in roles:
        raise BadRow(f"{where} has no message of the user; the roles are {', '.join(roles)}")
    if roles[-1] != "user":
        raise BadRow(f"{where} must end with a message of the user, not of the {roles[-1]}")
    _text(messages[-1]["content"], f"{where}, message {len(messages)}: 'content'")
    return messages


def _message(message: Any, where: str) -> Message:
    """One message; other keys than role and content must be text too, because chat templates read text."""
    if not isinstance(message, dict):
        raise BadRow(f"{where} must be an object with 'role' and 'content', not {_kind(message)}")
    given = {key: value for key, value in message.items() if value is not None}  # Parquet fills up with null
    for key in ("role", "content"):
        if key not in given:
            raise BadRow(f"{where} has no {key!r}; {hint(key, given, 'it has')}")
    if given["role"] not in ROLES:
        raise BadRow(f"{where}: unknown role {given['role']!r}; {nearest(str(given['role']), list(ROLES))}")
    return {key: _text(value, f"{where}: {key!r}", filled=False) for key, value in given.items()}


def _text(value: Any, where: str, filled: bool = True) -> str:
    if not isinstance(value, str):
        raise BadRow(f"{where} must be text, not {_kind(value)}")
    if filled and not value.strip():
        raise BadRow(f"{where} is empty")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # JSON can spell half a character: "\ud83d"
        raise BadRow(f"{where} has half a character, {value[error.start]!a}, at position {error.start + 1}") from error
    return value


def _lacks(row: dict[str, Any], *columns: str) -> str:
    """What a row without these columns has instead."""
    names = " or ".join(map(repr, columns))
    empty = [column for column in columns if column in row]
    if empty:
        return " and ".join(f"column {column!r} is {'null' if column in row else 'absent'}" for column in columns)
    return f"no column {names}; {hint(columns[0], row, 'the row has')}"


def _kind(value: Any) -> str:
    """A value's type in the words of JSON, and the value if it is short."""
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true/false", int: "a number", float: "a number"}
    if value is None:
        return "null"
    text = repr(value)
    kind = kinds.get(type(value), f"of type {type(value).__name__}")
    return f"{kind} ({text if len(text) <= 40 else text[:37] + '...'})"
