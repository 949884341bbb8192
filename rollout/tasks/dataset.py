"""``dataset``: questions from JSONL or Parquet files; docs/data.md is the user's guide.

All splits are read when the first one is asked for, so that everything that is wrong with the data is found at once.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rollout.component import UserError, nearest
from rollout.tasks.base import Example, Task
from rollout.tasks.questions import BadRow, QuestionOptions, make_example
from rollout.tasks.rows import Row, find_files, read_rows

log = logging.getLogger(__name__)

MAX_SHOWN = 5
"""Problems that are spelled out in one message."""


@dataclass(slots=True)
class Findings:
    """What is wrong with the data.

    Attributes:
        shown: the first problems, each with its place.
        num_problems: all of them.
        rejects: rows that are left out, as they are written to the file of rejects.
        num_rows: rows that were read.
    """

    shown: list[str] = field(default_factory=list)
    num_problems: int = 0
    rejects: list[dict[str, Any]] = field(default_factory=list)
    num_rows: int = 0

    def add(self, problem: str) -> None:
        """Note something that must be put right."""
        self.num_problems += 1
        if len(self.shown) < MAX_SHOWN:
            self.shown.append(problem)

    def raise_if_any(self) -> None:
        """Raise one :class:`UserError` with the first problems and the number of all."""
        if self.num_problems > len(self.shown):
            self.shown.append(f"{self.num_problems} problems in the data; above are the first {MAX_SHOWN}")
        if self.shown:
            raise UserError("\n".join(self.shown))


class Dataset(Task):
    """Questions from files; see the module's text. Ids are unique in a split."""

    name = "dataset"

    class Config(QuestionOptions):
        """Options of the task."""

        train: tuple[str, ...] = Field(
            min_length=1, description="Training files, .jsonl or .parquet: paths or globs from the working folder."
        )
        eval: dict[str, tuple[str, ...]] = Field(
            min_length=1, description="Evaluation splits, in-domain first: name to paths or globs."
        )
        on_bad_row: Literal["error", "reject"] = Field(
            "error", description="'error': nothing starts. 'reject': bad rows are left out and written to 'rejects'."
        )
        rejects: str | None = Field(
            None, min_length=1, description="JSONL file for rejected rows and reasons; replaced whenever data is read."
        )

        @field_validator("train", "eval", mode="before")
        @classmethod
        def _one_or_many(cls, value: Any) -> Any:
            if isinstance(value, Mapping):
                return {name: [files] if isinstance(files, str) else files for name, files in value.items()}
            return [value] if isinstance(value, str) else value

        @field_validator("eval")
        @classmethod
        def _splits(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
            for name, files in value.items():
                if name == "train" or not re.fullmatch(r"\w[\w.-]*", name):
                    raise ValueError(f"no name for a split: {name!r}; letters, digits, '_', '-' and '.', not 'train'")
                if not files:
                    raise ValueError(f"split {name!r} has no files")
            return value

        @model_validator(mode="after")
        def _rejects(self) -> Dataset.Config:
            if (self.on_bad_row == "reject") != (self.rejects is not None):
                raise ValueError("'on_bad_row: reject' and 'rejects: FILE.jsonl' go together; give both or neither")
            return self

    config: Dataset.Config

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.config.eval)

    def examples(self, split: str) -> Sequence[Example]:
        if split not in ("train", *self.splits):
            raise UserError(f"task 'dataset' has no split {split!r}; {nearest(split, ['train', *self.splits])}")
        return self._by_split[split]

    @cached_property
    def _by_split(self) -> dict[str, list[Example]]:
        findings, options = Findings(), self.config
        files = {"train": _files("data.task.train", options.train, options.rejects, findings)}
        for split, patterns in options.eval.items():
            files[split] = _files(f"data.task.eval.{split}", patterns, options.rejects, findings)
        found = {split: self._load(split, keys, findings) for split, keys in files.items()}
        findings.raise_if_any()
        if options.rejects is not None:
            write_rejects(Path(options.rejects).expanduser(), findings)
        for split, examples in found.items():
            self._warn_unanswered(split, examples)
        return found

    def _load(self, split: str, files: Mapping[Path, str], findings: Findings) -> list[Example]:
        """The questions of a split. ``files``: each file with the key of the configuration that names it."""
        labels = _labels(list(files))
        examples: list[Example] = []
        places: dict[str, str] = {}
        for path, key in files.items():
            num_rows, num_good, reason = 0, len(examples), ""
            try:
                for row in read_rows(path):
                    num_rows += 1
                    try:
                        examples.append(self._example(row, f"{labels[path]}:{row.number}", places))
                    except BadRow as problem:
                        reason = f"{row.place}: {problem}"
                        self._note(split, path, row, str(problem), findings)
            except UserError as error:
                findings.add(f"{key}: {error}")
            else:
                if num_rows == 0:
                    findings.add(f"{key}: {path}: the file has no rows")
                elif len(examples) == num_good and self.config.on_bad_row == "reject":
                    findings.add(f"{key}: {path}: all {num_rows} rows are bad; the last is {reason}")
            findings.num_rows += num_rows
        return examples

    def _example(self, row: Row, default_id: str, places: dict[str, str]) -> Example:
        """The question in a row; ``places``, where each id of the split stands, is added to."""
        if row.problem is not None:
            raise BadRow(row.problem)
        example = make_example(row.value, self.config, default_id)
        first = places.setdefault(example.example_id, row.place)
        if first != row.place:
            raise BadRow(f"id {example.example_id!r} is taken by {first}; ids must be unique in a split")
        return example

    def _note(self, split: str, path: Path, row: Row, reason: str, findings: Findings) -> None:
        if self.config.on_bad_row == "error":
            findings.add(f"{row.place}: {reason}")
            return
        record = {"split": split, "file": str(path), "number": row.number, "reason": reason, "row": row.value}
        findings.rejects.append(record)

    def _warn_unanswered(self, split: str, examples: Sequence[Example]) -> None:
        lacking = [example.example_id for example in examples if example.reference is None]
        if lacking and self.config.answer_column is not None:
            log.warning(
                "split %r: %d of %d questions have no %r, the first is %s; rewards that compare with it fail on them",
                *(split, len(lacking), len(examples), self.config.answer_column, lacking[0]),
            )


def _files(key: str, patterns: Sequence[str], rejects: str | None, findings: Findings) -> dict[Path, str]:
    """The files that the patterns name, each with the key of its pattern."""
    found: dict[Path, str] = {}
    for index, pattern in enumerate(patterns):
        known = {path.resolve() for path in found}
        try:
            paths = find_files(pattern)
        except UserError as error:
            findings.add(f"{key}.{index}: {error}")
            continue
        if rejects is not None and _would_read(pattern, paths, Path(rejects).expanduser()):
            findings.add(f"data.task.rejects: {rejects} would be read as data by {key}.{index} ({pattern})")
        for path in paths:
            if path.resolve() in known:
                findings.add(f"{key}.{index}: {path}: the file is named twice in this split")
            else:
                found[path] = f"{key}.{index}"
    return found


def _would_read(pattern: str, paths: Sequence[Path], rejects: Path) -> bool:
    """Whether the file of rejects is, or would be once it is written, one of the data files."""
    is_read = rejects.resolve() in [path.resolve() for path in paths]
    return is_read or rejects.absolute().match(str(Path(pattern).expanduser().absolute()))


def _labels(paths: Sequence[Path]) -> dict[Path, str]:
    """For each file the shortest end of its path, from the name on, that no other file of the split shares."""
    labels = {}
    for path in paths:
        others = [other.absolute().parts for other in paths if other != path]
        parts = path.absolute().parts
        lengths = range(1, len(parts) + 1)
        length = next(n for n in lengths if all(other[-n:] != parts[-n:] for other in others))
        labels[path] = "/".join(parts[-length:])
    return labels


def write_rejects(path: Path, findings: Findings) -> None:
    """Replace the file of rejects as a whole, because several processes may write the same one.

    Raises:
        UserError: it cannot be written.
    """
    lines = [json.dumps(record, default=str) + "\n" for record in findings.rejects]
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text("".join(lines), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UserError(f"data.task.rejects: cannot write {path}: {error.strerror or error}") from error
    if lines:
        log.warning("%d of %d rows of the data are rejected; see %s", len(lines), findings.num_rows, path)
