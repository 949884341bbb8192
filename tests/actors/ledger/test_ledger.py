"""What a ledger records and refuses, call by call; and what it costs."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from actors.ledger.account import read_account
from actors.ledger.errors import LedgerError
from actors.ledger.file import open_for_reading
from actors.ledger.ledger import Ledger
from actors.ledger.samples import Position
from rollout.component import UserError
from tests.actors.ledger.ledger_samples import PROMPTS, SIZE, admit, names, states


def train(ledger: Ledger, step: int, *indexes: int) -> None:
    """Admit, finish and commit groups."""
    for index in indexes:
        admit(ledger, index)
        for name in names(index):
            ledger.ready(name, 10)
    ledger.commit_step(step, [name for index in indexes for name in names(index)])


def test_the_life_of_a_group(ledger: Ledger, path: Path) -> None:
    assert ledger.position() == Position(0, ())
    admit(ledger, 0)
    assert states(path) == {"p-0#0": ("in_flight", None), "p-0#1": ("in_flight", None)}
    ledger.reissue("p-0#0", "rollout-1 died")
    ledger.ready("p-0#0", 12)
    ledger.drop("p-0#1", "no score", 1)
    assert ledger.position() == Position(1, (0,))
    ledger.commit_step(1, ["p-0#0"])
    assert states(path) == {"p-0#0": ("trained", 1), "p-0#1": ("dropped", 1)}
    assert ledger.position() == Position(1, ())


def test_rollback_sends_whole_groups_back(ledger: Ledger, path: Path) -> None:
    """Group 0 was finished at step 1; of group 1 a sample was dropped then, but the other was trained at step 2."""
    train(ledger, 1, 0)
    admit(ledger, 1)
    ledger.drop("p-1#0", "no score", 1)
    ledger.ready("p-1#1", 5)
    ledger.mark_checkpoint(1)
    ledger.commit_step(2, ["p-1#1"])
    ledger.mark_checkpoint(2)
    admit(ledger, 2)
    assert ledger.rollback(2) == 2
    assert states(path) == {
        **dict.fromkeys(names(0), ("trained", 1)),
        "p-1#0": ("dropped", 1),
        "p-1#1": ("trained", 2),
        **dict.fromkeys(names(2), ("pending", None)),
    }
    assert ledger.rollback(1) == 2
    assert states(path) == {
        **dict.fromkeys(names(0), ("trained", 1)),
        **dict.fromkeys(names(1) + names(2), ("pending", None)),
    }
    assert ledger.position() == Position(3, (1, 2))
    assert ledger.rollback(0) == 2
    assert ledger.position() == Position(3, (0, 1, 2))
    with open_for_reading(path) as db:
        account = read_account(db)
    assert (account.num_rollbacks, account.num_undone_steps, account.num_undone_samples) == (3, 2, 3)
    assert (account.last_step, account.checkpoint_step) == (0, None)


def test_a_group_dropped_whole_stays_dropped(ledger: Ledger) -> None:
    admit(ledger, 0)
    for name in names(0):
        ledger.drop(name, "quarantined: wedged two workers", 1)
    assert ledger.position() == Position(1, ())
    train(ledger, 1, 1)
    assert ledger.rollback(1) == 0
    assert ledger.position() == Position(2, ())
    assert ledger.rollback(0) == 4


def test_commit_is_idempotent_and_refuses_everything_else(ledger: Ledger, path: Path) -> None:
    train(ledger, 1, 0)
    ledger.commit_step(1, list(reversed(names(0))))
    admit(ledger, 1)
    ledger.ready("p-1#0", 3)
    before = states(path)
    refused = [
        (1, ["p-0#0"], "step 1 was committed before, with other samples"),
        (2, names(0), r"p-0#0 is trained at step 1 and cannot become trained"),
        (2, names(1), r"p-1#1 is in_flight and cannot become trained"),
        (2, ["p-1#0"], r"step 2 would split a group: its sample p-1#1 is in_flight"),
        (2, ["p-1#0", "p-1#0"], r"p-1#0 is trained at step 2 and cannot become trained"),
        (2, ["p-9#0"], r"p-9#0 was never admitted"),
        (3, ["p-1#0"], r"step 3 committed, the next one is 2"),
        (0, [], r"step 0 committed, the next one is 2"),
    ]
    for step, ids, reason in refused:
        with pytest.raises(LedgerError, match=reason):
            ledger.commit_step(step, ids)
        assert states(path) == before
    ledger.drop("p-1#1", "no score", 2)
    ledger.commit_step(2, ["p-1#0"])
    ledger.commit_step(3, [])  # an update that was skipped


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda ledger: admit(ledger, 2), "group 2 admitted, the next one is 1"),
        (lambda ledger: admit(ledger, 0), "p-0#0 is in_flight and cannot become in_flight"),
        (lambda ledger: ledger.admit(1, "p-1", 0, 0, 3), "group 1 has 3 samples, the run's have 2"),
        (lambda ledger: ledger.admit(0, "q", 0, 0, 2), r"group 0 was .*\('p-0', 0, 0\), now it is \('q', 0, 0\)"),
        (lambda ledger: ledger.reissue("p-7#0", "x"), "p-7#0 was never admitted"),
        (lambda ledger: ledger.drop("p-0#0", "", 1), "p-0#0 cannot be dropped without a reason"),
        (lambda ledger: ledger.mark_checkpoint(1), "checkpoint of step 1, the last step that was committed is 0"),
        (lambda ledger: ledger.rollback(4), "knows 0 trained steps and cannot go on from a checkpoint of step 4"),
        (lambda ledger: ledger.rollback(-1), "knows 0 trained steps"),
    ],
)
def test_refusals_name_the_file_and_change_nothing(ledger: Ledger, path: Path, change, reason: str) -> None:  # type: ignore[no-untyped-def]
    admit(ledger, 0)
    before = states(path)
    with pytest.raises(LedgerError, match=reason) as refusal:
        change(ledger)
    assert str(refusal.value).startswith(f"{path}: ")
    assert states(path) == before


def test_a_ledger_of_another_run_is_refused(ledger: Ledger, path: Path) -> None:
    ledger.close()
    with pytest.raises(UserError) as refusal:
        Ledger(path, num_prompts=4, samples_per_prompt=8)
    assert "the data set had 3 training prompts, now it has 4" in str(refusal.value)
    assert "training.samples_per_prompt was 2, now it is 8" in str(refusal.value)
    assert "--overwrite" in str(refusal.value)


def test_the_newest_writer_owns_the_file(ledger: Ledger, path: Path) -> None:
    """A controller that was taken for dead cannot spoil what its successor does."""
    train(ledger, 1, 0)
    successor = Ledger(path, num_prompts=PROMPTS, samples_per_prompt=SIZE)
    with pytest.raises(LedgerError, match="another process has taken this ledger over"):
        ledger.rollback(0)
    assert successor.position() == Position(1, ())
    successor.close()


def test_a_full_disk_changes_nothing_and_can_be_told_apart(ledger: Ledger, path: Path) -> None:
    database = ledger._file._db
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")
    admitted = 0
    with pytest.raises(LedgerError, match=r"ledger\.sqlite: database or disk is full") as failure:
        while True:
            admit(ledger, admitted)
            admitted += 1
    assert isinstance(failure.value.__cause__, sqlite3.Error)
    assert failure.value.__cause__.sqlite_errorname == "SQLITE_FULL"
    assert set(states(path)) == {name for index in range(admitted) for name in names(index)}
    database.execute("PRAGMA max_page_count = 100000")
    admit(ledger, admitted)  # there is space again
    assert ledger.position() == Position(admitted + 1, tuple(range(admitted + 1)))


def test_files_that_are_no_ledger(path: Path, tmp_path: Path) -> None:
    path.write_text("once upon a time " * 100)
    with pytest.raises(LedgerError, match="file is not a database"):
        Ledger(path, num_prompts=1, samples_per_prompt=1)
    with pytest.raises(LedgerError, match="file is not a database"), open_for_reading(path):
        pass
    with pytest.raises(LedgerError, match="unable to open"):
        Ledger(tmp_path / "nowhere" / "ledger.sqlite", num_prompts=1, samples_per_prompt=1)
    other = tmp_path / "other.sqlite"
    sqlite3.connect(other).execute("PRAGMA user_version = 99").connection.close()
    with pytest.raises(UserError, match="a ledger of format 99"):
        Ledger(other, num_prompts=1, samples_per_prompt=1)


def test_reading_leaves_no_file_behind(ledger: Ledger, path: Path) -> None:
    admit(ledger, 0)
    ledger.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert states(path) == dict.fromkeys(names(0), ("in_flight", None))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_step_costs_little(path: Path) -> None:
    """128 samples admitted and made ready: processor time against that of as many bare statements, best of five steps.

    In seconds it would be a test of what else the machine is doing.
    """
    ledger, bare = Ledger(path, num_prompts=10_000, samples_per_prompt=1), sqlite3.connect(":memory:")
    bare.execute("CREATE TABLE samples (name TEXT PRIMARY KEY, state TEXT)")
    durations, yardsticks = [], []
    for step in range(1, 6):
        ids = [f"p-{index}#0" for index in range((step - 1) * 128, step * 128)]
        begin = time.process_time()
        for name in ids:
            bare.execute("INSERT INTO samples VALUES (?, 'pending')", (name,))
        for name in ids:
            bare.execute("UPDATE samples SET state = 'ready' WHERE name = ?", (name,))
        yardsticks.append(time.process_time() - begin)
        begin = time.process_time()
        for name in ids:
            ledger.admit(int(name[2:-2]), name[:-2], 0, 0, 1)
        for name in ids:
            ledger.ready(name, 40)
        durations.append(time.process_time() - begin)
        ledger.commit_step(step, ids)
    ledger.close()
    bare.close()
    assert min(durations) < 40 * min(yardsticks)
