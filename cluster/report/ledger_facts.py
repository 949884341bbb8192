"""What a run's ledger tells a report: counts, repeats of prompts, and the cell of each logged trajectory."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from actors.ledger.errors import LedgerError
from actors.ledger.file import keeps_scores, open_for_reading
from actors.ledger.report import LEDGER_NAME

MAX_NAMES = 500
"""Names that one SQL statement is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """All scored samples of one answer to one prompt.

    Attributes:
        num_scores: how often it was scored.
        sum_scores: of its observed scores.
        gold: its true score where that may be looked at and is one, else None.
    """

    num_scores: int
    sum_scores: float
    gold: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerFacts:
    """Counts of a ledger.

    Attributes:
        states: samples by state.
        dropped: dropped samples by reason.
        reissued: samples that were asked for again, by cause.
        num_prompts: training prompts of one epoch.
        repeats: mean number of times that a prompt which was trained on at all was trained on.
        num_rollbacks: returns to a checkpoint.
        num_gold: samples with a true score that training or an audit may look at.
        longest: ids and tokens of the longest responses that were trained on.
        cells: the cell of each trajectory that was asked for, of those with an answer.
    """

    states: Mapping[str, int]
    dropped: Mapping[str, int]
    reissued: Mapping[str, int]
    num_prompts: int
    repeats: float
    num_rollbacks: int
    num_gold: int | None
    longest: tuple[tuple[str, int], ...]
    cells: Mapping[str, Cell] = field(default_factory=dict)


def read_ledger(folder: Path, trajectory_ids: Collection[str], problems: list[str]) -> LedgerFacts | None:
    """Read the ledger of a run that may be going on; None without one.

    Args:
        folder: of the run.
        trajectory_ids: whose cells are wanted.
        problems: why it cannot be read is added to it.
    """
    path = folder / LEDGER_NAME
    if not path.is_file():
        return None
    try:
        with open_for_reading(path) as db:
            has_scores = keeps_scores(db)
            if not has_scores:
                problems.append("the ledger is of an earlier format that kept no scores, so cells are not known")
            cells = _cells(db, trajectory_ids) if has_scores else {}
            return _facts(db, has_scores, cells)
    except (LedgerError, sqlite3.Error) as error:
        problems.append(f"the ledger cannot be read: {error}")
        return None


def _facts(db: sqlite3.Connection, has_scores: bool, cells: Mapping[str, Cell]) -> LedgerFacts:
    trained = (
        "SELECT COUNT(DISTINCT group_index), COUNT(DISTINCT prompt_id) FROM samples JOIN groups USING (group_index) "
        "WHERE state = 'trained'"
    )
    num_groups, num_prompts = db.execute(trained).fetchone()
    facts = dict(db.execute("SELECT name, value FROM facts"))
    gold = "SELECT COUNT(*) FROM samples WHERE gold IS NOT NULL"
    longest = "SELECT trajectory_id, num_tokens FROM samples WHERE state = 'trained' ORDER BY 2 DESC, 1 LIMIT 5"
    reasons = "SELECT reason, COUNT(*) FROM samples WHERE state = 'dropped' GROUP BY 1 ORDER BY 2 DESC"
    return LedgerFacts(
        states=dict(db.execute("SELECT state, COUNT(*) FROM samples GROUP BY 1")),
        dropped=dict(db.execute(reasons)),
        reissued=dict(db.execute("SELECT cause, COUNT(*) FROM reissues GROUP BY 1 ORDER BY 2 DESC")),
        num_prompts=int(facts.get("num_prompts", 0)),
        repeats=num_groups / num_prompts if num_prompts else 0.0,
        num_rollbacks=db.execute("SELECT COUNT(*) FROM rollbacks").fetchone()[0],
        num_gold=db.execute(gold).fetchone()[0] if has_scores else None,
        longest=tuple((name, int(tokens or 0)) for name, tokens in db.execute(longest)),
        cells=cells,
    )


def _cells(db: sqlite3.Connection, trajectory_ids: Collection[str]) -> dict[str, Cell]:
    """By trajectory. Only those that are shown are looked up: a ledger may have millions."""
    names = sorted(trajectory_ids)
    found: dict[str, Cell] = {}
    for start in range(0, len(names), MAX_NAMES):
        wanted = names[start : start + MAX_NAMES]
        marks = ", ".join("?" * len(wanted))
        rows = db.execute(
            f"SELECT trajectory_id, prompt_id, answer_key FROM samples JOIN groups USING (group_index) "
            f"WHERE answer_key != '' AND trajectory_id IN ({marks})",
            wanted,
        ).fetchall()
        for name, prompt_id, key in rows:
            number, total, low, high = db.execute(
                "SELECT COUNT(observed), TOTAL(observed), MIN(gold), MAX(gold) FROM groups JOIN samples "
                "USING (group_index) WHERE prompt_id = ? AND answer_key = ?",
                (prompt_id, key),
            ).fetchone()
            found[name] = Cell(num_scores=number, sum_scores=total, gold=low if low == high else None)
    return found
