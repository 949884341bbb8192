"""``dataset``: questions from JSONL or Parquet files.

A row has a ``prompt`` (text) or ``messages`` (a list of ``{"role": ..., "content": ...}``, the last one the user's),
usually an ``answer``, and any further columns, which are kept as they are. A row's ``id``, where it has one, must be
unique in its split; otherwise rows are numbered.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from rollout.component import StrictModel, UserError, nearest
from rollout.tasks.base import Example, Task
from rollout.trajectory import Message

ROLES = ("system", "user", "assistant", "tool")
FORMATS = (".jsonl", ".parquet")
Row = tuple[str, Any]
"""Where a row stands (``path:line`` or ``path, row n``) and what it is."""


class Dataset(Task):
    """Questions from files; see the module's text."""

    name = "dataset"

    class Config(StrictModel):
        """Options of the task."""

        train: tuple[str, ...] = Field(min_length=1, description="Training files, .jsonl or .parquet; one or a list.")
        eval: dict[str, tuple[str, ...]] = Field(
            min_length=1, description="Evaluation splits: name to file or list of files; in-domain first."
        )
        prompt_column: str = Field("prompt", min_length=1, description="Column with the question as text.")
        messages_column: str = Field("messages", min_length=1, description="Column with the question as messages.")
        answer_column: str = Field("answer", min_length=1, description="Column with the reference answer.")
        id_column: str = Field("id", min_length=1, description="Column with the row's name, where rows have one.")
        require_answer: bool = Field(True, description="A row without an answer is an error.")
        system_prompt: str | None = Field(None, description="A system message to put before every 'prompt' row.")

        @field_validator("train", mode="before")
        @classmethod
        def _one_or_many(cls, value: Any) -> Any:
            return (value,) if isinstance(value, str) else value

        @field_validator("eval", mode="before")
        @classmethod
        def _each_one_or_many(cls, value: Any) -> Any:
            if not isinstance(value, Mapping):
                return value
            return {name: (files,) if isinstance(files, str) else files for name, files in value.items()}

        @field_validator("eval")
        @classmethod
        def _names(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
            for name, files in value.items():
                if name == "train":
                    raise ValueError("an evaluation split cannot be called 'train'")
                if not files:
                    raise ValueError(f"split {name!r} has no files")
            return value

    config: Dataset.Config

    def __init__(self, config: Dataset.Config) -> None:
        super().__init__(config)
        self._loaded: dict[str, list[Example]] = {}

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.config.eval)

    def examples(self, split: str) -> Sequence[Example]:
        files = {"train": self.config.train, **self.config.eval}
        if split not in files:
            raise UserError(f"task 'dataset' has no split {split!r}; {nearest(split, files)}")
        if split not in self._loaded:
            self._loaded[split] = self._load(split, files[split])
        return self._loaded[split]

    def _load(self, split: str, files: Sequence[str]) -> list[Example]:
        found: list[Example] = []
        places: dict[str, str] = {}
        for path in map(Path, files):
            before = len(found)
            for place, row in read_rows(path):
                example = self._example(place, row, f"{split}-{len(found):06d}")
                if example.example_id in places:
                    first = places[example.example_id]
                    raise UserError(f"{place}: duplicate id {example.example_id!r}, first used at {first}")
                places[example.example_id] = place
                found.append(example)
            if len(found) == before:
                raise UserError(f"{path}: no rows")
        return found

    def _example(self, place: str, row: Any, default_id: str) -> Example:
        options = self.config
        if not isinstance(row, dict):
            raise UserError(f"{place}: a row must be an object with named columns, not {_type_name(row)}")
        messages = self._messages(place, row)
        reference = _answer(place, row, options.answer_column, options.require_answer)
        example_id = default_id
        if row.get(options.id_column) is not None:
            value = row[options.id_column]
            if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
                raise UserError(f"{place}: column {options.id_column!r} must be text or an integer, {_shown(value)}")
            example_id = str(value)
        used = {options.prompt_column, options.messages_column, options.answer_column, options.id_column}
        return Example(example_id, messages, reference, {name: row[name] for name in row if name not in used})

    def _messages(self, place: str, row: dict[str, Any]) -> tuple[Message, ...]:
        prompt_column, messages_column = self.config.prompt_column, self.config.messages_column
        prompt, messages = row.get(prompt_column), row.get(messages_column)
        if prompt is None and messages is None:
            raise UserError(
                f"{place}: neither column {prompt_column!r} nor {messages_column!r}; {_columns(prompt_column, row)}"
            )
        if prompt is not None and messages is not None:
            raise UserError(f"{place}: both columns {prompt_column!r} and {messages_column!r}; give one of them")
        if messages is not None:
            return _checked_messages(f"{place}: column {messages_column!r}", messages)
        if not isinstance(prompt, str):
            raise UserError(f"{place}: column {prompt_column!r} must be text, {_shown(prompt)}")
        if not prompt.strip():
            raise UserError(f"{place}: column {prompt_column!r} is empty")
        system = self.config.system_prompt
        user: Message = {"role": "user", "content": prompt}
        return (user,) if system is None else ({"role": "system", "content": system}, user)


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a JSONL or Parquet file, each with its place; blank lines of JSONL are skipped.

    Raises:
        UserError: no such file (the nearest name is given), an unknown format, bad UTF-8 or JSON, or a broken Parquet
            file.
    """
    if not path.is_file():
        raise UserError(f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}{_near(path)}")
    if path.suffix not in FORMATS:
        raise UserError(f"{path}: unknown format {path.suffix!r}; valid: {', '.join(FORMATS)}")
    return _read_jsonl(path) if path.suffix == ".jsonl" else _read_parquet(path)


def _read_jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            place = f"{path}:{number}"
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                bad = f"byte 0x{line[error.start]:02x} at column {error.start + 1}"
                raise UserError(f"{place}: not UTF-8: {bad}") from error
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                what = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
                raise UserError(f"{place}: not JSON: {what}") from error
            yield place, row


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from error
    return ((f"{path}, row {number}", row) for number, row in enumerate(rows, start=1))


def _near(path: Path) -> str:
    """A hint at what else stands in the folder."""
    folder = path.parent
    if not folder.is_dir():
        return f"; the folder {folder} does not exist either"
    names = [entry.name for entry in folder.iterdir() if entry.suffix in FORMATS]
    return f" in {folder}; {nearest(path.name, names)}" if names else f"; {folder} has no .jsonl or .parquet files"


def _checked_messages(place: str, messages: Any) -> tuple[Message, ...]:
    if not isinstance(messages, list) or not messages:
        raise UserError(f"{place} must be a list of messages, {_shown(messages)}")
    for index, message in enumerate(messages):
        where = f"{place}, message {index + 1}"
        if not isinstance(message, dict) or not {"role", "content"} <= set(message):
            raise UserError(f"{where}: must be an object with 'role' and 'content', {_shown(message)}")
        if message["role"] not in ROLES:
            raise UserError(f"{where}: unknown role {message['role']!r}; {nearest(str(message['role']), list(ROLES))}")
        if not isinstance(message["content"], str):
            raise UserError(f"{where}: 'content' must be text, {_shown(message['content'])}")
    if messages[-1]["role"] not in ("user", "tool"):
        raise UserError(f"{place}: the last message must be the user's, not the {messages[-1]['role']}'s")
    return tuple({"role": message["role"], "content": message["content"]} for message in messages)


def _answer(place: str, row: dict[str, Any], column: str, required: bool) -> str | None:
    value = row.get(column)
    if value is None:
        if required:
            raise UserError(f"{place}: no column {column!r}; {_columns(column, row)} (or set require_answer: false)")
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UserError(f"{place}: column {column!r} must be text or a number, {_shown(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{place}: column {column!r} must be finite, {_shown(value)}")
    return str(value)


def _columns(wanted: str, row: dict[str, Any]) -> str:
    filled = [name for name in row if row[name] is not None]
    return nearest(wanted, filled).replace("valid:", "the row has:") if filled else "the row is empty"


def _type_name(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true/false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def _shown(value: Any) -> str:
    text = repr(value)
    return f"not {_type_name(value)}: {text if len(text) <= 60 else text[:57] + '...'}"
