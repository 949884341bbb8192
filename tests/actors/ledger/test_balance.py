"""A ledger that was changed by other hands does not balance, and the check says what is wrong."""

from __future__ import annotations

import math
import sqlite3
import statistics
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from actors.ledger.account import RESTART, Account, read_account
from actors.ledger.balance import Balance, check_balance
from actors.ledger.errors import LedgerError
from actors.ledger.file import open_for_reading
from actors.ledger.ledger import Ledger
from actors.ledger.samples import pack_ids

PROMPTS, SIZE = 4, 2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Seven groups of two: the first two of step 1, the next two of step 2, one dropped, two on their way."""
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path, num_prompts=PROMPTS, samples_per_prompt=SIZE)
    for index in range(7):
        epoch, place = divmod(index, PROMPTS)
        ledger.admit(index, f"p-{place}", epoch, epoch * SIZE, SIZE)
        ids = [f"p-{place}#{epoch * SIZE + i}" for i in range(SIZE)]
        for name in ids if index < 4 else []:
            ledger.ready(name, 10 + index)
        for name in ids if index == 4 else []:
            ledger.drop(name, "quarantined: two workers died", 3)
        if index == 3:
            ledger.commit_step(1, ["p-0#0", "p-0#1", "p-1#0", "p-1#1"])
            ledger.commit_step(2, ["p-2#0", "p-2#1", "p-3#0", "p-3#1"])
    ledger.close()
    return path


def edit(path: Path, *statements: str) -> None:
    """Change the file by hand, past its own constraints."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        for statement in statements:
            assert db.execute(statement).rowcount != 0, "the edit must change something"


def examine(path: Path) -> tuple[Account, Balance]:
    with open_for_reading(path) as db:
        return read_account(db), check_balance(db, PROMPTS, SIZE)


def test_untouched(path: Path) -> None:
    account, found = examine(path)
    assert found == Balance((), 0, 0)
    assert account.states == {"pending": 0, "in_flight": 4, "ready": 0, "trained": 8, "dropped": 2}
    assert [(epoch.num_admitted, epoch.num_complete, epoch.num_trained) for epoch in account.epochs] == [
        (4, 4, 8),
        (3, 1, 0),
    ]
    assert [epoch.num_waiting for epoch in account.epochs] == [0, 4]
    assert account.epochs[1].dropped == {"quarantined: two workers died": 2}
    assert account.quarantined == ("p-0",)


TWICE = pack_ids(["p-2#0", "p-2#1", "p-3#0", "p-3#1", "p-0#1"]).hex()

EDITS: dict[str, tuple[list[str], list[str], int, int]] = {
    # name: statements, violations, lost, trained twice
    "a group is gone": (
        ["DELETE FROM samples WHERE group_index = 5", "DELETE FROM groups WHERE group_index = 5"],
        ["groups 5 to 5 are missing"],
        2,
        0,
    ),
    "the first groups are gone": (
        ["DELETE FROM groups WHERE group_index < 2", "DELETE FROM samples WHERE group_index < 2"],
        [
            "groups 0 to 1 are missing",
            "committed at a step and not recorded as trained on there: p-0#0, p-0#1, p-1#0, ... (4 in all)",
        ],
        4,
        0,
    ),
    "a sample is gone": (
        ["DELETE FROM samples WHERE trajectory_id = 'p-1#2'"],
        ["groups that do not have 2 samples: 5 (p-1)"],
        1,
        0,
    ),
    "a sample too many": (
        ["INSERT INTO samples (trajectory_id, group_index, state) VALUES ('p-1#9', 5, 'in_flight')"],
        ["groups that do not have 2 samples: 5 (p-1)", "not of the prompt or the epoch of their group: p-1#9"],
        0,
        0,
    ),
    "a sample of no group": (
        ["INSERT INTO samples (trajectory_id, group_index, state) VALUES ('q#0', 99, 'in_flight')"],
        ["samples of no group: q#0"],
        0,
        0,
    ),
    "another sample's name": (
        ["UPDATE samples SET trajectory_id = 'p-1#02' WHERE trajectory_id = 'p-1#2'"],
        ["not of the prompt or the epoch of their group: p-1#02"],
        0,
        0,
    ),
    "a trained sample is ready again": (
        ["UPDATE samples SET state = 'ready', step = NULL WHERE trajectory_id = 'p-0#1'"],
        ["committed at a step and not recorded as trained on there: p-0#1", "trained on in part, or at more than one"],
        0,
        0,
    ),
    "a sample is trained on twice": (
        [
            f"UPDATE steps SET num_samples = 5, trajectory_ids = x'{TWICE}' WHERE step = 2",
            "UPDATE samples SET step = 2 WHERE trajectory_id = 'p-0#1'",
        ],
        ["samples trained on twice: p-0#1", "committed at a step and not recorded as trained on there: p-0#1"],
        0,
        1,
    ),
    "a dropped sample is trained on": (
        ["UPDATE samples SET state = 'trained', num_tokens = 1, reason = NULL, step = 2 WHERE group_index = 4"],
        ["recorded as trained on at a step that was not committed with them: p-0#2, p-0#3"],
        0,
        0,
    ),
    "a state of its own": (
        ["UPDATE samples SET state = 'eaten' WHERE trajectory_id = 'p-1#2'"],
        ["of a state that does not exist: p-1#2"],
        0,
        0,
    ),
    "trained at no step": (
        ["UPDATE samples SET step = NULL WHERE trajectory_id = 'p-0#0'"],
        ["trained on or dropped at no step, or at one while they wait: p-0#0"],
        0,
        0,
    ),
    "no reason": (
        ["UPDATE samples SET reason = '' WHERE trajectory_id = 'p-0#2'"],
        ["samples dropped without a reason: p-0#2"],
        0,
        0,
    ),
    "no length": (
        ["UPDATE samples SET num_tokens = NULL WHERE trajectory_id = 'p-0#0'"],
        ["ready or trained on, of unknown length: p-0#0"],
        0,
        0,
    ),
    "dropped in the future": (
        ["UPDATE samples SET step = 9 WHERE trajectory_id = 'p-0#2'"],
        ["dropped at a step that has not come: p-0#2"],
        0,
        0,
    ),
    "a step is gone": (
        ["DELETE FROM steps WHERE step = 1"],
        ["steps 1 to 1 are missing", "not committed with them: p-0#0, p-0#1, p-1#0, ... (4 in all)"],
        0,
        0,
    ),
    "a step cannot be read": (
        ["UPDATE steps SET trajectory_ids = x'00ff' WHERE step = 2"],
        ["the samples of step 2 cannot be read", "steps committed with another number of samples than they name: 2"],
        0,
        0,
    ),
    "a step of other samples": (
        ["UPDATE steps SET num_samples = 3 WHERE step = 2"],
        ["steps committed with another number of samples than they name: 2"],
        0,
        0,
    ),
    "another epoch": (
        ["UPDATE groups SET epoch = 0 WHERE group_index = 6"],
        ["another epoch than their place in the sequence of 4 prompts: 6 (p-2)", "prompts twice in an epoch: p-2"],
        0,
        0,
    ),
    "another prompt in a whole epoch": (
        ["UPDATE groups SET prompt_id = 'q' WHERE group_index = 2"],
        [
            "prompts missing from an epoch that was admitted whole: p-2 (epoch 0)",
            "not of the prompt or the epoch of their group",
        ],
        0,
        0,
    ),
    "a checkpoint of the future": (
        ["INSERT INTO checkpoints VALUES (7, 0)"],
        ["checkpoints marked after the last step: 7"],
        0,
        0,
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_what_other_hands_did_is_found(name: str, path: Path) -> None:
    statements, violations, num_lost, num_twice = EDITS[name]
    edit(path, *statements)
    _, found = examine(path)
    for phrase in violations:
        assert any(phrase in violation for violation in found.violations), found.violations
    assert (found.num_lost, found.num_trained_twice) == (num_lost, num_twice)


REPLACED = [f"p-1#{number}" for number in (2, 10**12 + 2, 2 * 10**12 + 2)]
REPLACEMENT_EDITS: dict[str, tuple[str, str, int]] = {
    # name: statement, violation, lost
    "what it replaces was not dropped": (
        f"UPDATE samples SET state = 'in_flight', step = NULL, reason = NULL WHERE trajectory_id = '{REPLACED[0]}'",
        f"samples in the place of one that was not dropped: {REPLACED[1]}",
        0,
    ),
    "what it replaces is gone": (
        f"DELETE FROM samples WHERE trajectory_id = '{REPLACED[1]}'",
        f"samples in the place of one that was not dropped: {REPLACED[2]}",
        0,
    ),
    "what was replaced first is gone": (
        f"DELETE FROM samples WHERE trajectory_id = '{REPLACED[0]}'",
        "groups that do not have 2 samples: 5 (p-1)",
        1,
    ),
    "a replacement of no sample of the group": (
        "INSERT INTO samples (trajectory_id, group_index, state) VALUES ('p-1#1000000000009', 5, 'in_flight')",
        "samples not of the prompt or the epoch of their group: p-1#1000000000009",
        0,
    ),
}


def replace_twice(path: Path) -> None:
    ledger = Ledger(path, num_prompts=PROMPTS, samples_per_prompt=SIZE)
    for name, replacement in pairwise(REPLACED):
        ledger.drop(name, "no score", 3, replacement)
    for name in (REPLACED[2], "p-1#3"):
        ledger.ready(name, 20)
    ledger.commit_step(3, [REPLACED[2], "p-1#3"])
    ledger.close()


def test_replacements_balance(path: Path) -> None:
    replace_twice(path)
    account, found = examine(path)
    assert found == Balance((), 0, 0)
    assert account.states == {"pending": 0, "in_flight": 2, "ready": 0, "trained": 10, "dropped": 4}
    assert account.num_replacements == 2
    second = account.epochs[1]
    assert (second.num_admitted, second.num_complete, second.num_trained, second.num_waiting) == (3, 2, 2, 2)
    assert second.dropped == {"quarantined: two workers died": 2, "no score": 2}


@pytest.mark.parametrize("name", REPLACEMENT_EDITS)
def test_replacements_that_do_not_fit_are_found(name: str, path: Path) -> None:
    statement, violation, num_lost = REPLACEMENT_EDITS[name]
    replace_twice(path)
    edit(path, statement)
    _, found = examine(path)
    assert any(text.startswith(violation) for text in found.violations), found.violations
    assert found.num_lost == num_lost


def test_a_restart_forgets_replacements(path: Path) -> None:
    """Their group is generated anew, so they are replacements of nothing until they are needed again."""
    replace_twice(path)
    ledger = Ledger(path, num_prompts=PROMPTS, samples_per_prompt=SIZE)
    assert ledger.rollback(2) == 3 * SIZE, "both samples of each group that step 2 has not finished"
    ledger.admit(5, "p-1", 1, 2, SIZE)
    ledger.drop(REPLACED[0], "no score", 3, REPLACED[1])
    ledger.close()
    account, found = examine(path)
    assert found == Balance((), 0, 0)
    assert account.num_replacements == 1


def test_a_damaged_page_is_found(path: Path) -> None:
    """Bytes in the middle of the file, as a failing disk leaves them."""
    data = bytearray(path.read_bytes())
    where = data.index(b"p-2#1")
    data[where - 200 : where] = bytes(200)
    path.write_bytes(data)
    try:
        _, found = examine(path)
    except LedgerError as error:
        assert "malformed" in str(error)
    else:
        assert any("the file is damaged" in violation for violation in found.violations)


def test_facts_that_are_gone(path: Path) -> None:
    edit(path, "DELETE FROM facts WHERE name = 'num_prompts'")
    with pytest.raises(LedgerError, match="table of facts is damaged: KeyError"):
        examine(path)


def test_lengths_of_reissued_samples(tmp_path: Path) -> None:
    """Means, errors and the difference within steps, against the plain statistics of the lengths."""
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path, num_prompts=100, samples_per_prompt=1)
    lengths = {1: [10, 20, 33, 47], 2: [100, 160, 120, 110], 3: [5, 8]}  # of each step; the first two are asked again
    index = 0
    for step, tokens in lengths.items():
        begin = index
        for place, length in enumerate(tokens):
            ledger.admit(index, f"p-{index}", 0, 0, 1)
            if place < 2 and step < 3:
                for cause in ("node died", "worker died")[: step + place]:
                    ledger.reissue(f"p-{index}#0", cause)
            ledger.ready(f"p-{index}#0", length)
            index += 1
        ledger.commit_step(step, [f"p-{i}#0" for i in range(begin, index)])
    ledger.rollback(2)
    for i, length in ((8, 6), (9, 9)):
        ledger.admit(i, f"p-{i}", 0, 0, 1)
        ledger.ready(f"p-{i}#0", length)
    ledger.commit_step(3, ["p-8#0", "p-9#0"])
    ledger.close()
    with open_for_reading(path) as db:
        found = read_account(db).reissues
    assert found.num_by_cause == {"node died": 4, "worker died": 3, RESTART: 2}
    again, others = [10, 20, 100, 160, 6, 9], [33, 47, 120, 110]
    for measured, plain in (
        (found.again, again),
        (found.others, others),
        (found.lengths_by_cause["node died"], [10, 20, 100, 160]),
        (found.lengths_by_cause["worker died"], [20, 100, 160]),
        (found.lengths_by_cause[RESTART], [6, 9]),
    ):
        assert measured.num_samples == len(plain)
        assert measured.mean == pytest.approx(statistics.mean(plain))
        assert measured.standard_error == pytest.approx(statistics.stdev(plain) / math.sqrt(len(plain)))
    # Step 3 has no others. Steps 1 and 2: two against two each, so each difference counts half.
    assert found.difference == pytest.approx(((15 - 40) + (130 - 115)) / 2)
    variances = [statistics.variance(lengths[step]) * (1 / 2 + 1 / 2) for step in (1, 2)]
    assert found.difference_error == pytest.approx(math.sqrt(sum(variances) / 4))
