"""``dataset``: questions from JSONL, Parquet or Arrow files; docs/data.md is the user's guide.

All splits are read when the first one is asked for, so that everything that is wrong with the data is found at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rollout.component import ComponentSpec, PathText, UserError, nearest
from rollout.component.mistakes import Conflict, GivenTwice, NoRows, UnknownName
from rollout.conversation.options import build_environment
from rollout.environment import Environment
from rollout.tasks.base import Example, Task
from rollout.tasks.questions import BadRow, QuestionOptions, after_system, make_example, worked_example
from rollout.tasks.row_errors import RowErrors
from rollout.tasks.rows import Row, find_files, read_rows
from rollout.trajectory import Message, Prompt


class Dataset(Task):
    """Questions from files; see the module's text. Ids are unique in a split."""

    name = "dataset"

    class Config(QuestionOptions):
        """Options of the task."""

        train: tuple[PathText, ...] = Field(
            min_length=1, description="Training files (.jsonl, .parquet, .arrow) or saved data sets: paths or globs."
        )
        eval: dict[str, tuple[PathText, ...]] = Field(
            min_length=1, description="Evaluation splits, in-domain first: name to paths or globs."
        )
        on_bad_row: Literal["error", "reject"] = Field(
            "error", description="'error': nothing starts. 'reject': bad rows are left out and written to 'rejects'."
        )
        rejects: PathText | None = Field(
            None, min_length=1, description="JSONL file for rejected rows and reasons; replaced whenever data is read."
        )
        max_reject_frac: float = Field(
            0.05, ge=0.0, le=1.0, description="Share of rejected rows in a split above which nothing starts."
        )
        few_shot: tuple[PathText, ...] = Field(
            (), description="Files of worked examples, all of which stand before every question as turns of a chat."
        )
        few_shot_column: str = Field(
            "response", min_length=1, description="Column of these files with the response; without one, the answer."
        )
        environment: ComponentSpec | None = Field(
            None,
            description="What answers the responses: 'package.module:Class' and its options, see docs/environments.md; "
            "none for a single response.",
        )

        @field_validator("train", "eval", "few_shot", mode="before")
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
            # A run writes down every default, so what counts is whether the value differs from it.
            default = type(self).model_fields["max_reject_frac"].default
            if self.on_bad_row == "error" and self.max_reject_frac != default:
                raise ValueError("max_reject_frac has no effect without 'on_bad_row: reject'")
            return self

    config: Dataset.Config

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.config.eval)

    def examples(self, split: str) -> Sequence[Example]:
        if split not in ("train", *self.splits):
            raise UnknownName(f"task 'dataset' has no split {split!r}; {nearest(split, ['train', *self.splits])}")
        examples = self._by_split[split]
        if not self._shots:
            return examples
        return [replace(example, messages=after_system(example.messages, self._shots)) for example in examples]

    def make_environment(self, prompt: Prompt) -> Environment | None:
        spec = self.config.environment
        return None if spec is None else build_environment(spec, "data.task.environment")

    def leave_out(self, split: str, reasons: Mapping[str, str]) -> bool:
        if self.config.rejects is None:
            return False
        examples = self._by_split[split]
        # By place, because the row as it was read is not kept in memory; it is read again for the file of rejects.
        wanted = {example.place: reasons[example.example_id] for example in examples if example.example_id in reasons}
        for path in self._paths[split]:
            for row in read_rows(path):
                if row.place in wanted:
                    self._row_errors.reject(split, path, row, wanted[row.place])
        self._by_split[split] = [example for example in examples if example.example_id not in reasons]
        self._settle()
        if not self._by_split[split]:
            raise NoRows(f"data.task: no question of split {split!r} is left; see {self.config.rejects}")
        return True

    def remarks(self) -> list[str]:
        found = self._by_split
        lines = []
        if numbers := self._row_errors.num_rejected:
            shares = ", ".join(
                f"{split} {number} of {self._row_errors.num_rows[split]}" for split, number in numbers.items()
            )
            lines.append(f"data.task.rejects: rows are rejected ({shares}); see {self.config.rejects}")
        shown = {message["content"] for message in self._shots if message["role"] == "user"}
        for split, examples in found.items():
            lines += self._unanswered(split, examples)
            given = [example.place for example in examples if example.messages[-1]["content"] in shown]
            if given:
                lines.append(
                    f"data.task.few_shot: {len(given)} of {len(examples)} questions of split {split!r} are among the "
                    f"worked examples, answer and all; the first is {given[0]}"
                )
        if self.config.environment is None:  # with one, the same opening may begin another conversation
            lines += _leaks(found)
        return lines

    @cached_property
    def _by_split(self) -> dict[str, list[Example]]:
        errors, options = RowErrors(), self.config
        # All files and rows are looked at before anything is raised: the user sees all mistakes at once.
        files = {"train": _files("data.task.train", options.train, options.rejects, errors)}
        for split, patterns in options.eval.items():
            files[split] = _files(f"data.task.eval.{split}", patterns, options.rejects, errors)
        found = {split: self._load(split, keys, errors) for split, keys in files.items()}
        self._shots = self._read_shots(errors)
        errors.raise_if_any()
        self._row_errors, self._paths = errors, files
        self._settle()
        return found

    def _read_shots(self, errors: RowErrors) -> tuple[Message, ...]:
        """The turns before every question."""
        turns: list[Message] = []
        for path, key in _files("data.task.few_shot", self.config.few_shot, None, errors).items():
            try:
                for row in read_rows(path):
                    try:
                        if row.problem is not None:
                            raise BadRow(row.problem)
                        turns += worked_example(row.value, self.config, self.config.few_shot_column)
                    except BadRow as problem:
                        errors.add(f"{row.place}: {problem}")
            except UserError as error:
                errors.add(f"{key}: {error}")
        return tuple(turns)

    def _settle(self) -> None:
        """Write the rejects, and see whether they are too many."""
        if self.config.rejects is not None:
            path = Path(self.config.rejects)
            self._row_errors.write_rejects(path)
            self._row_errors.raise_if_too_many(self.config.max_reject_frac, path)

    def _load(self, split: str, files: Mapping[Path, str], errors: RowErrors) -> list[Example]:
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
                        self._note(split, path, row, str(problem), errors)
            except UserError as error:
                errors.add(f"{key}: {error}")
            else:
                if num_rows == 0:
                    errors.add(str(NoRows(f"{key}: {path}: the file has no rows")))
                # A whole file of rejects is a wrong option rather than bad rows.
                elif len(examples) == num_good and self.config.on_bad_row == "reject":
                    errors.add(f"{key}: {path}: all {num_rows} rows are bad; the last is {reason}")
            errors.num_rows[split] += num_rows
        return examples

    def _example(self, row: Row, default_id: str, places: dict[str, str]) -> Example:
        """The question in a row; ``places``, where each id of the split stands, is added to."""
        if row.problem is not None:
            raise BadRow(row.problem)
        example = replace(make_example(row.value, self.config, default_id), place=row.place)
        # Two rows with one id would share their random streams, and one would hide the other in every report.
        first = places.setdefault(example.example_id, row.place)
        if first != row.place:
            raise BadRow(f"id {example.example_id!r} is taken by {first}; ids must be unique in a split")
        return example

    def _note(self, split: str, path: Path, row: Row, reason: str, errors: RowErrors) -> None:
        if self.config.on_bad_row == "error":
            errors.add(f"{row.place}: {reason}")
        else:
            errors.reject(split, path, row, reason)

    def _unanswered(self, split: str, examples: Sequence[Example]) -> list[str]:
        lacking = [example for example in examples if example.reference is None]
        if not lacking or self.config.answer_column is None:
            return []
        return [
            f"data.task: split {split!r}: {len(lacking)} of {len(examples)} questions have no "
            f"{self.config.answer_column!r}, the first is {lacking[0].place}; rewards that compare with it fail on them"
        ]


def _leaks(found: Mapping[str, Sequence[Example]]) -> list[str]:
    """Splits that have questions of the training split."""
    trained = {_question(example): example.place for example in found["train"]}
    lines = []
    for split, examples in found.items():
        shared = [example for example in examples if split != "train" and _question(example) in trained]
        if shared:
            lines.append(
                f"data.task.eval.{split}: {len(shared)} of {len(examples)} questions are training questions too, so "
                f"they measure what was learnt by heart; the first is {shared[0].place}, which is "
                f"{trained[_question(shared[0])]}"
            )
    return lines


def _question(example: Example) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message["content"]) for message in example.messages)


def _files(key: str, patterns: Sequence[str], rejects: str | None, errors: RowErrors) -> dict[Path, str]:
    """The files that the patterns name, each with the key of its pattern."""
    found: dict[Path, str] = {}
    for index, pattern in enumerate(patterns):
        known = {path.resolve() for path in found}
        try:
            paths = find_files(pattern)
        except UserError as error:
            errors.add(f"{key}.{index}: {error}")
            continue
        if rejects is not None and _would_read(pattern, paths, Path(rejects)):
            told = f"data.task.rejects: {rejects} would be read as data by {key}.{index} ({pattern})"
            errors.add(str(Conflict(told)))
        for path in paths:
            if path.resolve() in known:
                errors.add(str(GivenTwice(f"{key}.{index}: {path}: the file is named twice in this split")))
            else:
                found[path] = f"{key}.{index}"
    return found


def _would_read(pattern: str, paths: Sequence[Path], rejects: Path) -> bool:
    """Whether the file of rejects is, or would be once it is written, one of the data files."""
    is_read = rejects.resolve() in [path.resolve() for path in paths]
    return is_read or rejects.absolute().match(str(Path(pattern).absolute()))


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
