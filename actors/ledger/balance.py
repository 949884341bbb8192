"""Proof that a ledger balances: no sample is lost, none is trained on twice, and its tables agree. Reading only.

What was trained on is recorded twice, at the sample and at the step, so that a change of one shows against the other.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from actors.ledger.samples import IS_REPLACEMENT, PLACE, unpack_ids
from rollout.trajectory import REPLACEMENT_STRIDE

NUM_NAMED = 3
"""Offenders that a violation names; all are counted."""

WAITING = "state NOT IN ('trained', 'dropped')"

CHECKS = (
    (
        "of a state that does not exist",
        "SELECT trajectory_id FROM samples WHERE state NOT IN ('pending', 'in_flight', 'ready', 'trained', 'dropped')",
    ),
    (
        "trained on or dropped at no step, or at one while they wait",
        f"SELECT trajectory_id FROM samples WHERE ({WAITING}) = (step IS NOT NULL)",
    ),
    (
        "dropped without a reason",
        "SELECT trajectory_id FROM samples WHERE state = 'dropped' AND IFNULL(reason, '') = ''",
    ),
    (
        "ready or trained on, of unknown length",
        "SELECT trajectory_id FROM samples WHERE state IN ('ready', 'trained') AND num_tokens IS NULL",
    ),
    (
        "dropped at a step that has not come",
        "SELECT trajectory_id FROM samples WHERE state = 'dropped' "
        "AND step > (SELECT IFNULL(MAX(step), 0) + 1 FROM steps)",
    ),
    (
        "of no group",
        "SELECT trajectory_id FROM samples WHERE group_index NOT IN (SELECT group_index FROM groups)",
    ),
    (
        "not of the prompt or the epoch of their group",
        "SELECT trajectory_id FROM (SELECT trajectory_id, prompt_id, first_sample, "
        f"{PLACE} AS place FROM samples JOIN groups USING (group_index)) "
        f"WHERE trajectory_id != prompt_id || '#' || place "
        f"OR place % {REPLACEMENT_STRIDE} NOT BETWEEN first_sample AND first_sample + :size - 1",
    ),
    (
        "in the place of one that was not dropped",
        "SELECT later.trajectory_id FROM (SELECT trajectory_id, group_index, "
        f"prompt_id || '#' || ({PLACE} - {REPLACEMENT_STRIDE}) AS replaced "
        f"FROM samples JOIN groups USING (group_index) WHERE {IS_REPLACEMENT}) AS later "
        "LEFT JOIN samples ON samples.trajectory_id = replaced AND samples.group_index = later.group_index "
        "WHERE IFNULL(state, '') != 'dropped'",
    ),
    (
        "committed at a step and not recorded as trained on there",
        "SELECT trajectory_id FROM (SELECT trajectory_id, step FROM committed "
        "EXCEPT SELECT trajectory_id, step FROM samples WHERE state = 'trained')",
    ),
    (
        "recorded as trained on at a step that was not committed with them",
        "SELECT trajectory_id FROM (SELECT trajectory_id, step FROM samples WHERE state = 'trained' "
        "EXCEPT SELECT trajectory_id, step FROM committed)",
    ),
    ("trained on twice", "SELECT trajectory_id FROM committed GROUP BY trajectory_id HAVING COUNT(*) > 1"),
)
"""What no sample may be, and the query for those that are."""

GROUP_CHECKS = (
    (
        "groups that do not have :size samples",
        "SELECT group_index || ' (' || prompt_id || ')' FROM groups LEFT JOIN samples USING (group_index) "
        f"GROUP BY group_index HAVING COUNT(IIF({IS_REPLACEMENT}, NULL, trajectory_id)) != :size",
    ),
    (
        "groups of another epoch than their place in the sequence of :num_prompts prompts",
        "SELECT group_index || ' (' || prompt_id || ')' FROM groups "
        "WHERE epoch != group_index / :num_prompts OR first_sample != epoch * :size",
    ),
    (
        "groups trained on in part, or at more than one step",
        "SELECT group_index FROM samples WHERE state != 'dropped' GROUP BY group_index "
        "HAVING COUNT(DISTINCT IFNULL(step, 0)) > 1",
    ),
    (
        "prompts twice in an epoch",
        "SELECT prompt_id || ' (epoch ' || epoch || ')' FROM groups GROUP BY epoch, prompt_id HAVING COUNT(*) > 1",
    ),
    (
        "prompts missing from an epoch that was admitted whole",
        "WITH whole AS (SELECT epoch FROM groups GROUP BY epoch HAVING COUNT(*) >= :num_prompts), "
        "known AS (SELECT DISTINCT prompt_id FROM groups) SELECT prompt_id || ' (epoch ' || epoch || ')' FROM "
        "(SELECT prompt_id, epoch FROM known, whole EXCEPT SELECT prompt_id, epoch FROM groups)",
    ),
    (
        "steps committed with another number of samples than they name",
        "SELECT step FROM steps WHERE num_samples != "
        "(SELECT COUNT(*) FROM committed WHERE committed.step = steps.step)",
    ),
    (
        "checkpoints marked after the last step",
        "SELECT step FROM checkpoints WHERE step > (SELECT IFNULL(MAX(step), 0) FROM steps)",
    ),
)
"""What else may not be."""


@dataclass(frozen=True, slots=True)
class Balance:
    """What is wrong, if anything.

    Attributes:
        violations: one sentence each.
        num_lost: samples that should be there, after the groups that were admitted, and are not.
        num_trained_twice: samples that two steps were committed with.
    """

    violations: tuple[str, ...]
    num_lost: int
    num_trained_twice: int


def check_balance(db: sqlite3.Connection, num_prompts: int, samples_per_prompt: int) -> Balance:
    """Check everything that must hold; ``db`` is open for reading (:func:`actors.ledger.file.open_for_reading`)."""
    facts = {"size": samples_per_prompt, "num_prompts": num_prompts}
    violations = [f"the file is damaged: {text}" for (text,) in db.execute("PRAGMA integrity_check(3)") if text != "ok"]
    violations += _read_committed(db)
    gaps = list(_gaps(db, "group_index", "groups", 0))
    violations += [f"groups {first} to {last} are missing" for first, last in gaps]
    violations += [f"steps {first} to {last} are missing" for first, last in _gaps(db, "step", "steps", 1)]
    found = [(f"samples {what}", query) for what, query in CHECKS] + list(GROUP_CHECKS)
    for what, query in found:
        names = [str(row[0]) for row in db.execute(query, facts)]
        if names:
            for name, value in facts.items():
                what = what.replace(f":{name}", str(value))
            more = f", ... ({len(names)} in all)" if len(names) > NUM_NAMED else ""
            violations.append(f"{what}: {', '.join(names[:NUM_NAMED])}{more}")
    # Bounded by the size, so that one group with too many does not make up for another with too few.
    missing = (
        "SELECT COUNT(*) AS found FROM groups JOIN samples USING (group_index) "
        f"WHERE NOT {IS_REPLACEMENT} GROUP BY group_index"
    )
    (num_groups,) = db.execute("SELECT COUNT(*) FROM groups").fetchone()
    (num_kept,) = db.execute(f"SELECT TOTAL(MIN(found, :size)) FROM ({missing})", facts).fetchone()
    # Groups of which there is no trace were admitted too, since places in the sequence have no gaps.
    num_admitted = (num_groups + sum(last - first + 1 for first, last in gaps)) * samples_per_prompt
    twice = "SELECT COUNT(*) FROM (SELECT 1 FROM committed GROUP BY trajectory_id HAVING COUNT(*) > 1)"
    return Balance(tuple(violations), num_admitted - int(num_kept), db.execute(twice).fetchone()[0])


def _read_committed(db: sqlite3.Connection) -> Iterator[str]:
    """Unpack what each step was committed with into a temporary table; yields what cannot be unpacked."""
    db.execute("CREATE TEMP TABLE committed (trajectory_id TEXT NOT NULL, step INTEGER NOT NULL)")
    for step, packed in db.execute("SELECT step, trajectory_ids FROM steps").fetchall():
        try:
            names = unpack_ids(packed)
        except (zlib.error, ValueError, TypeError) as error:  # what a changed value can lead to
            yield f"the samples of step {step} cannot be read: {error}"
            continue
        db.executemany("INSERT INTO committed VALUES (?, ?)", [(name, step) for name in names])
    db.execute("CREATE INDEX temp.committed_of_step ON committed (step)")


def _gaps(db: sqlite3.Connection, column: str, table: str, begin: int) -> list[tuple[int, int]]:
    """First and last number of each stretch that is missing from ``begin`` on."""
    query = f"SELECT {column}, LAG({column}, 1, {begin - 1}) OVER (ORDER BY {column}) FROM {table}"
    return [(before + 1, number - 1) for number, before in db.execute(query) if number != before + 1]
