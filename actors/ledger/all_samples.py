"""Every sample of a ledger as columns, for tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors.ledger.file import keeps_scores, open_for_reading

COLUMNS = (
    "trajectory_id",
    "prompt_id",
    "group_index",
    "epoch",
    "state",
    "step",
    "num_tokens",
    "reason",
    "observed",
    "answer_key",
    "gold",
)
_OF_SCORES = ("observed", "answer_key", "gold")


def read_samples(path: Path) -> dict[str, list[Any]]:
    """Columns of all samples by name, in the order in which their groups were admitted; None where a value is missing.

    Raises:
        LedgerError: the file cannot be read.
    """
    with open_for_reading(path) as db:
        has_scores = keeps_scores(db)
        wanted = [name if has_scores or name not in _OF_SCORES else f"NULL AS {name}" for name in COLUMNS]
        query = f"SELECT {', '.join(wanted)} FROM samples JOIN groups USING (group_index) ORDER BY 3, 1"
        columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        for row in db.execute(query):
            for name, value in zip(COLUMNS, row, strict=True):
                columns[name].append(value)
    return columns
