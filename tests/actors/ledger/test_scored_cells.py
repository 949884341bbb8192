"""Scores in the ledger: counted once by answer, taken back with their samples, and absent from ledgers of format 1."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from actors.ledger.ledger import Ledger
from actors.ledger.samples import SampleScore
from actors.ledger.scored_cells import LedgerScores, ScoredCell, read_scores
from tests.actors.ledger.ledger_samples import PROMPTS, SIZE, admit, names

RIGHT = SampleScore(observed=1.0, answer_key="21", gold=1.0)
WRONG = SampleScore(observed=0.0, answer_key="22")


def cell(prompt: str, key: str, number: int, total: float, *golds: float) -> ScoredCell:
    return ScoredCell(prompt_id=prompt, answer_key=key, num_scores=number, sum_scores=total, golds=golds)


def open_ledger(path: Path) -> Ledger:
    return Ledger(path, num_prompts=PROMPTS, samples_per_prompt=SIZE)


def finish(ledger: Ledger, index: int, *scores: SampleScore) -> None:
    admit(ledger, index)
    for name, score in zip(names(index), scores, strict=True):
        ledger.ready(name, 5, score)


def test_scores_of_an_answer_are_counted_together_over_epochs(path: Path) -> None:
    ledger = open_ledger(path)
    finish(ledger, 0, RIGHT, WRONG)
    finish(ledger, 1, WRONG, SampleScore(observed=1.0, answer_key="22", gold=0.0))
    for index in range(2, PROMPTS):
        finish(ledger, index, *[SampleScore()] * SIZE)  # a vote, or a stand-in: the reward has said nothing
    finish(ledger, PROMPTS, SampleScore(observed=0.0, answer_key="21"), SampleScore(observed=1.0))  # prompt 0 again
    ledger.close()
    # Where nothing could read the answer the sample stands for itself.
    cells = [
        cell("p-0", "", 1, 1.0),
        cell("p-0", "21", 2, 1.0, 1.0),
        cell("p-0", "22", 1, 0.0),
        cell("p-1", "22", 2, 1.0, 0.0),
    ]
    found = read_scores(path)
    assert sorted(map(repr, found.cells)) == sorted(map(repr, cells))
    assert [one.prompt_id for one in found.cells] == ["p-0", "p-0", "p-0", "p-1"]
    assert found.num_other == 0


def test_a_rollback_takes_scores_back(path: Path) -> None:
    ledger = open_ledger(path)
    finish(ledger, 0, RIGHT, WRONG)
    ledger.commit_step(1, names(0))
    finish(ledger, 1, RIGHT, RIGHT)
    ledger.commit_step(2, names(1))
    ledger.rollback(1)
    assert [(one.prompt_id, one.num_scores) for one in read_scores(path).cells] == [("p-0", 1), ("p-0", 1)]
    admit(ledger, 1)
    for name in names(1):
        ledger.ready(name, 5, WRONG)
    assert read_scores(path).cells[-1] == cell("p-1", "22", 2, 0.0)
    ledger.close()


def test_contradicting_true_scores_and_other_numbers_are_told(path: Path) -> None:
    ledger = open_ledger(path)
    finish(ledger, 0, RIGHT, SampleScore(observed=0.25, answer_key="21", gold=0.5))
    ledger.close()
    assert read_scores(path) == LedgerScores(cells=[cell("p-0", "21", 2, 1.25, 0.5, 1.0)], num_other=1)


def test_a_ledger_of_format_1_goes_on_and_gets_scores(path: Path) -> None:
    open_ledger(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for column in ("observed", "answer_key", "gold"):
            db.execute(f"ALTER TABLE samples DROP COLUMN {column}")
        db.execute("PRAGMA user_version = 1")
    assert read_scores(path) == LedgerScores(cells=(), num_other=0)
    ledger = open_ledger(path)
    finish(ledger, 0, RIGHT, RIGHT)
    ledger.close()
    assert read_scores(path).cells == [cell("p-0", "21", 2, 2.0, 1.0)]
    open_ledger(path).close()
