"""What a ledger knows of scores: counts of each answer to each prompt, and true scores where they may be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.ledger.file import keeps_scores, open_for_reading


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredCell:
    """The scored samples of one answer to one prompt, or one sample whose answer nothing could read.

    Attributes:
        prompt_id: of all of them.
        answer_key: the answer; empty where nothing could read it.
        num_scores: samples with a score of the reward; those that a rollback took back are not among them.
        sum_scores: of their scores.
        golds: the different true scores that were looked at. More than one: the answers are not one answer.
    """

    prompt_id: str
    answer_key: str
    num_scores: int
    sum_scores: float
    golds: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerScores:
    """All scores of a run.

    Attributes:
        cells: in the order of their prompts' names.
        num_other: scores that are neither 0 nor 1.
    """

    cells: Sequence[ScoredCell]
    num_other: int


BY_ANSWER = "GROUP BY prompt_id, CASE answer_key WHEN '' THEN trajectory_id ELSE answer_key END"
"""In SQL, samples of one answer to one prompt together, where their groups are joined."""
_CELLS = f"""
SELECT prompt_id, MIN(answer_key), COUNT(observed), TOTAL(observed), GROUP_CONCAT(DISTINCT gold)
FROM samples JOIN groups USING (group_index) WHERE observed IS NOT NULL
{BY_ANSWER} ORDER BY prompt_id
"""


def read_scores(path: Path) -> LedgerScores:
    """Read the scores of a run that may be going on.

    Raises:
        LedgerError: the file cannot be read.
    """
    with open_for_reading(path) as db:
        if not keeps_scores(db):
            return LedgerScores(cells=(), num_other=0)  # of an earlier format
        rows = db.execute(_CELLS).fetchall()
        (num_other,) = db.execute("SELECT COUNT(*) FROM samples WHERE observed NOT IN (0.0, 1.0)").fetchone()
    cells = [
        ScoredCell(
            prompt_id=prompt_id,
            answer_key=key or "",
            num_scores=number,
            sum_scores=total,
            golds=tuple(sorted(map(float, golds.split(",")))) if golds else (),
        )
        for prompt_id, key, number, total, golds in rows
    ]
    return LedgerScores(cells=cells, num_other=num_other)
