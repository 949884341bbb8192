"""What a ledger says became of the samples, counted. Reading only."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from actors.ledger.errors import LedgerError
from actors.ledger.samples import IS_REPLACEMENT, SampleState

LENGTHS = "COUNT(*), TOTAL(num_tokens), TOTAL(num_tokens * num_tokens)"
AGAIN = "(attempts > 1 OR trajectory_id IN (SELECT trajectory_id FROM reissues))"
RESTART = "restart of the run"
"""Cause of the samples that a rollback has sent back and that were admitted again."""


@dataclass(frozen=True, slots=True)
class EpochAccount:
    """One pass over the training prompts.

    Attributes:
        epoch: from 0.
        num_prompts: prompts that the epoch has.
        num_admitted: prompts whose generation has begun.
        num_complete: prompts of which each sample is trained on or dropped.
        num_trained: samples trained on.
        num_waiting: samples admitted and neither trained on nor dropped.
        dropped: dropped samples by reason.
    """

    epoch: int
    num_prompts: int
    num_admitted: int
    num_complete: int
    num_trained: int
    num_waiting: int
    dropped: dict[str, int]


@dataclass(frozen=True, slots=True)
class Lengths:
    """Response lengths of samples that were trained on.

    Attributes:
        num_samples: how many.
        mean: mean number of tokens; NaN without samples.
        standard_error: of the mean; NaN with fewer than two samples.
    """

    num_samples: int
    mean: float
    standard_error: float

    @classmethod
    def of(cls, num_samples: int, total: float, squares: float) -> Lengths:
        """From the count, the sum and the sum of squares."""
        if not num_samples:
            return cls(0, math.nan, math.nan)
        error = math.sqrt(_variance(num_samples, total, squares) / num_samples) if num_samples > 1 else math.nan
        return cls(num_samples, total / num_samples, error)


@dataclass(frozen=True, slots=True)
class ReissueAccount:
    """Samples that were asked for more than once.

    Attributes:
        num_by_cause: how often a sample was asked for again, by cause; :data:`RESTART` is one.
        lengths_by_cause: of those trained on.
        again: all samples asked for more than once and trained on.
        others: the rest of what was trained on.
        difference: mean length of ``again`` minus ``others``, compared within each step and weighted by ``again``, so
            that a trend in length over the run does not count; NaN if no step has both.
        difference_error: its standard error.
    """

    num_by_cause: dict[str, int]
    lengths_by_cause: dict[str, Lengths]
    again: Lengths
    others: Lengths
    difference: float
    difference_error: float


@dataclass(frozen=True, slots=True)
class Account:
    """The whole of it.

    Attributes:
        num_prompts, samples_per_prompt: what the run was begun with.
        last_step: the last step that was committed.
        checkpoint_step: the last step that is marked as having a checkpoint, or None.
        states: samples by state.
        num_replacements: samples in the place of dropped ones, which are counted above too.
        epochs: by epoch.
        reissues: see :class:`ReissueAccount`.
        num_rollbacks: how often the run went back to a checkpoint, or to its start.
        num_undone_steps, num_undone_samples: training that was undone by this, and done anew.
        quarantined: prompts of which samples were dropped for a reason that begins with "quarantined".
    """

    num_prompts: int
    samples_per_prompt: int
    last_step: int
    checkpoint_step: int | None
    states: dict[str, int]
    num_replacements: int
    epochs: tuple[EpochAccount, ...]
    reissues: ReissueAccount
    num_rollbacks: int
    num_undone_steps: int
    num_undone_samples: int
    quarantined: tuple[str, ...]


def read_account(db: sqlite3.Connection) -> Account:
    """Count what the ledger holds; ``db`` is open for reading (:func:`actors.ledger.file.open_for_reading`).

    Raises:
        LedgerError: the ledger does not say what it is of.
    """
    facts = dict(db.execute("SELECT name, value FROM facts"))
    try:
        num_prompts, samples_per_prompt = int(facts["num_prompts"]), int(facts["samples_per_prompt"])
    except (KeyError, ValueError) as error:
        raise LedgerError(f"the ledger's table of facts is damaged: {error!r}") from error
    found = dict(db.execute("SELECT state, COUNT(*) FROM samples GROUP BY state"))
    quarantined = (
        "SELECT DISTINCT prompt_id FROM samples JOIN groups USING (group_index) "
        "WHERE state = 'dropped' AND reason LIKE 'quarantined%' ORDER BY 1"
    )
    undone = db.execute("SELECT COUNT(*), IFNULL(SUM(num_samples), 0) FROM undone_steps").fetchone()
    return Account(
        num_prompts,
        samples_per_prompt,
        _one(db, "SELECT IFNULL(MAX(step), 0) FROM steps"),
        _one(db, "SELECT MAX(step) FROM checkpoints"),
        # A state that no sample is in is shown as 0; one that should not exist is shown as well.
        {str(state): found.get(state, 0) for state in SampleState} | found,
        _one(db, f"SELECT COUNT(*) FROM samples JOIN groups USING (group_index) WHERE {IS_REPLACEMENT}"),
        _epochs(db, num_prompts, samples_per_prompt),
        _reissues(db, samples_per_prompt),
        _one(db, "SELECT COUNT(*) FROM rollbacks"),
        undone[0],
        undone[1],
        tuple(prompt_id for (prompt_id,) in db.execute(quarantined)),
    )


def list_samples(db: sqlite3.Connection, state: SampleState) -> list[dict[str, Any]]:
    """The samples in one state, oldest group first: id, group, and what is known of them."""
    columns = ("trajectory_id", "group_index", "step", "num_tokens", "reason")
    query = f"SELECT {', '.join(columns)} FROM samples WHERE state = ? ORDER BY group_index, trajectory_id"
    return [dict(zip(columns, row, strict=True)) for row in db.execute(query, (state,))]


def _epochs(db: sqlite3.Connection, num_prompts: int, samples_per_prompt: int) -> tuple[EpochAccount, ...]:
    groups = (
        "SELECT epoch, COUNT(*), SUM(trained + dropped = MAX(num, ?)), SUM(trained), SUM(num - trained - dropped) FROM "
        "(SELECT epoch, COUNT(state) AS num, IFNULL(SUM(state = 'trained'), 0) AS trained, "
        "IFNULL(SUM(state = 'dropped'), 0) AS dropped FROM groups LEFT JOIN samples USING (group_index) "
        "GROUP BY group_index) GROUP BY epoch ORDER BY epoch"
    )
    reasons = (
        "SELECT epoch, reason, COUNT(*) FROM samples JOIN groups USING (group_index) WHERE state = 'dropped' "
        "GROUP BY epoch, reason ORDER BY epoch, COUNT(*) DESC, reason"
    )
    dropped: dict[int, dict[str, int]] = {}
    for epoch, reason, count in db.execute(reasons):
        dropped.setdefault(epoch, {})[str(reason)] = count
    return tuple(
        EpochAccount(epoch, num_prompts, admitted, complete, trained, waiting, dropped.get(epoch, {}))
        for epoch, admitted, complete, trained, waiting in db.execute(groups, (samples_per_prompt,))
    )


def _reissues(db: sqlite3.Connection, samples_per_prompt: int) -> ReissueAccount:
    num_by_cause = dict(db.execute("SELECT cause, COUNT(*) FROM reissues GROUP BY cause ORDER BY cause"))
    # A sample that was lost twice to one cause counts once among the lengths.
    by_cause = (
        f"SELECT cause, {LENGTHS} FROM (SELECT DISTINCT cause, trajectory_id FROM reissues) "
        "JOIN samples USING (trajectory_id) WHERE state = 'trained' GROUP BY cause"
    )
    found = {cause: Lengths.of(*sums) for cause, *sums in db.execute(by_cause)}
    lengths = {cause: found.get(cause, Lengths.of(0, 0.0, 0.0)) for cause in num_by_cause}
    # A rollback sends whole groups back, so each admission after the first asks for all samples anew.
    restarts = _one(db, "SELECT IFNULL(SUM(attempts - 1), 0) FROM groups") * samples_per_prompt
    if restarts:
        trained = "FROM samples JOIN groups USING (group_index) WHERE state = 'trained'"
        num_by_cause[RESTART] = restarts
        lengths[RESTART] = Lengths.of(*db.execute(f"SELECT {LENGTHS} {trained} AND attempts > 1").fetchone())
    per_step = (
        f"SELECT step, {AGAIN}, {LENGTHS} FROM samples JOIN groups USING (group_index) "
        "WHERE state = 'trained' GROUP BY 1, 2"
    )
    # By step: lengths are compared only among samples that the same update was trained on.
    sums: dict[bool, dict[int, tuple[int, float, float]]] = {False: {}, True: {}}
    for step, again, *row in db.execute(per_step):
        sums[bool(again)][step] = (row[0], row[1], row[2])
    return ReissueAccount(
        num_by_cause,
        lengths,
        Lengths.of(*_add(sums[True].values())),
        Lengths.of(*_add(sums[False].values())),
        *_difference(sums[True], sums[False]),
    )


def _difference(
    again: dict[int, tuple[int, float, float]], others: dict[int, tuple[int, float, float]]
) -> tuple[float, float]:
    """Mean over ``again`` of length minus the mean of ``others`` of the same step, and its standard error.

    The error takes lengths of one step to be independent, with the variance that all samples of that step have.
    """
    shared = [step for step in again if step in others]
    total = sum(again[step][0] for step in shared)
    if not total:
        return math.nan, math.nan
    mean = variance = 0.0
    for step in shared:
        (num, tokens, _), (num_others, tokens_others, _) = again[step], others[step]
        mean += num / total * (tokens / num - tokens_others / num_others)
        spread = _variance(*_add((again[step], others[step])))
        variance += (num / total) ** 2 * spread * (1 / num + 1 / num_others)
    return mean, math.sqrt(variance)


def _variance(num: int, total: float, squares: float) -> float:
    """Unbiased variance from at least two samples' sums; rounding cannot make it negative."""
    return max(0.0, squares - total * total / num) / (num - 1)


def _add(sums: Iterable[tuple[int, float, float]]) -> tuple[int, float, float]:
    rows = list(sums)
    return sum(row[0] for row in rows), sum(row[1] for row in rows), sum(row[2] for row in rows)


def _one(db: sqlite3.Connection, query: str) -> Any:
    return db.execute(query).fetchone()[0]
