"""What is wrong with data files: problems that stop everything, and rows that are left out and written down."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rollout.component import UserError
from rollout.component.mistakes import DataRow, NotWritable
from rollout.tasks.json_values import NoJsonForm, json_value
from rollout.tasks.rows import Row

MAX_SHOWN = 5
"""Problems that are spelled out in one message."""


@dataclass(slots=True)
class RowErrors:
    """Problems, rejected rows, and how many rows there were. Every row is a question, a problem or a reject.

    Attributes:
        shown: the first problems, each with its place.
        num_problems: all of them.
        rejects: rows that are left out, as they are written to the file of rejects.
        num_rows: rows that were read, by split.
        num_rejected: how many of them are left out, by split.
    """

    shown: list[str] = field(default_factory=list)
    num_problems: int = 0
    rejects: list[dict[str, Any]] = field(default_factory=list)
    num_rows: Counter[str] = field(default_factory=Counter)
    num_rejected: Counter[str] = field(default_factory=Counter)
    _first: dict[str, str] = field(default_factory=dict)

    def add(self, problem: str) -> None:
        """Note something that must be put right."""
        self.num_problems += 1
        if len(self.shown) < MAX_SHOWN:
            self.shown.append(str(DataRow(problem)))

    def raise_if_any(self) -> None:
        """Raise one :class:`UserError` with the first problems and the number of all."""
        if self.num_problems > len(self.shown):
            self.shown.append(f"{self.num_problems} problems in the data; above are the first {MAX_SHOWN}")
        if self.shown:
            raise UserError("\n".join(self.shown))

    def reject(self, split: str, path: Path, row: Row, reason: str) -> None:
        """Leave a row out."""
        self.num_rejected[split] += 1
        self._first.setdefault(split, f"{row.place}: {reason}")
        record = {"split": split, "file": str(path), "number": row.number, "reason": reason, "row": row.value}
        self.rejects.append(record)

    def raise_if_too_many(self, max_frac: float, path: Path) -> None:
        """Raise a :class:`UserError` if more than a share of a split's rows is left out. ``path``: where they are."""
        lines = []
        for split, number in self.num_rejected.items():
            total = self.num_rows[split]
            if number > max_frac * total:
                lines.append(
                    f"data.task.max_reject_frac: {number} of {total} rows of split {split!r} are rejected, more than "
                    f"a share of {max_frac:g}; the first is {self._first[split]}; all are in {path} [{DataRow.code}]"
                )
        if lines:
            raise UserError("\n".join(lines))

    def write_rejects(self, path: Path) -> None:
        """Replace the file of rejects as a whole, because several processes may write the same one.

        Raises:
            UserError: it cannot be written.
        """
        lines = [json.dumps(record, default=_shown) + "\n" for record in self.rejects]
        # The process id, so that two processes never write into one partial file; the last one to finish wins.
        partial = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text("".join(lines), encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            raise NotWritable(f"data.task.rejects: cannot write {path}: {error.strerror or error}") from error


def _shown(value: Any) -> Any:
    """A value of a rejected row; one that JSON has no form for may be the very reason, so it is only described."""
    try:
        return json_value(value)
    except NoJsonForm:
        return str(value)
