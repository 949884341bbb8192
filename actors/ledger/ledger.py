"""The durable record of what became of each sample: generated, trained on once, or dropped with a reason.

A *sample* is one trajectory to be made, named ``prompt_id#sample_index``; the samples of one prompt in one epoch are a
*group*, named by its place in the endless sequence of prompts. A dropped sample may have a *replacement*, one more
sample of its group (:meth:`rollout.trajectory.SampleRequest.replacement`), which may be dropped and replaced in turn.
Each sample is in exactly one :class:`SampleState`::

    PENDING -> IN_FLIGHT -> READY -> TRAINED         admit, ready, commit_step
                       \\       \\-> DROPPED           drop
                        \\-> DROPPED                  drop
    any state -> PENDING                             rollback, for whole groups; their replacements are gone then

SQLite keeps it, in WAL mode, so that another process can read while the run goes on. Every change is one transaction
and survives the death of this process; :meth:`Ledger.commit_step`, :meth:`Ledger.mark_checkpoint` and
:meth:`Ledger.rollback` also survive the machine's, since they wait until the change is on the disk.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from actors.ledger.fence import Fence
from actors.ledger.file import LedgerFile
from actors.ledger.samples import (
    IS_REPLACEMENT,
    UNKNOWN_SCORE,
    Position,
    SampleScore,
    SampleState,
    pack_ids,
    unpack_ids,
)


class Ledger:
    """The ledger of one run, open for writing. Calls may come from any thread, one at a time.

    The newest writer owns the file: if a second one opens it (a controller that was taken for dead has been replaced),
    every later change through the first one raises.

    Args:
        path: the file; made if it does not exist.
        num_prompts: training prompts, the length of one epoch.
        samples_per_prompt: size of each group.

    Raises:
        UserError: the file belongs to a run with other facts.
        LedgerError: the file cannot be opened, or is not a ledger.
    """

    def __init__(self, path: Path, *, num_prompts: int, samples_per_prompt: int) -> None:
        self._file = LedgerFile(path, {"num_prompts": num_prompts, "samples_per_prompt": samples_per_prompt})
        self._samples_per_prompt = samples_per_prompt

    def admit(self, index: int, prompt_id: str, epoch: int, first_sample: int, num_samples: int) -> None:
        """Generation of a group begins: its samples ``first_sample``, ``first_sample + 1``, ... are in flight.

        Raises:
            LedgerError: the group has been admitted and not rolled back, or is not the one that was admitted at
                ``index`` before, or ``index`` would leave a gap, or the group has another size than the run's.
        """
        if num_samples != self._samples_per_prompt:
            raise self._file.refusal(
                f"group {index} has {num_samples} samples, the run's have {self._samples_per_prompt}"
            )
        ids = [f"{prompt_id}#{first_sample + i}" for i in range(num_samples)]
        facts = (prompt_id, epoch, first_sample)
        with self._file.change() as db:
            columns = "prompt_id, epoch, first_sample"
            known = db.execute(f"SELECT {columns} FROM groups WHERE group_index = ?", (index,)).fetchone()
            if known is None:
                # Places are admitted in order, so that a gap in them is a loss and nothing else.
                if index != _next_index(db):
                    raise self._file.refusal(f"group {index} admitted, the next one is {_next_index(db)}")
                db.execute("INSERT INTO groups VALUES (?, ?, ?, ?, 1)", (index, *facts))
                rows = [(name, index, SampleState.IN_FLIGHT) for name in ids]
                db.executemany("INSERT INTO samples (trajectory_id, group_index, state) VALUES (?, ?, ?)", rows)
                return
            if known != facts:
                raise self._file.refusal(f"group {index} was (prompt, epoch, first sample) {known}, now it is {facts}")
            # Admitted before and sent back by a rollback, which has made all samples pending: the same group once more.
            self._set(db, ids, (SampleState.PENDING,), state=SampleState.IN_FLIGHT)
            db.execute("UPDATE groups SET attempts = attempts + 1 WHERE group_index = ?", (index,))

    def reissue(self, trajectory_id: str, cause: str) -> None:
        """A sample in flight is asked for again, since whoever was making it was lost to ``cause``."""
        with self._file.change() as db:
            self._set(db, [trajectory_id], (SampleState.IN_FLIGHT,), state=SampleState.IN_FLIGHT)
            db.execute("INSERT INTO reissues (trajectory_id, cause) VALUES (?, ?)", (trajectory_id, cause))

    def ready(self, trajectory_id: str, num_tokens: int, score: SampleScore = UNKNOWN_SCORE) -> None:
        """A sample in flight is generated and scored; ``num_tokens`` is the response's length."""
        with self._file.change() as db:
            self._set(
                db,
                [trajectory_id],
                (SampleState.IN_FLIGHT,),
                state=SampleState.READY,
                num_tokens=num_tokens,
                observed=score.observed,
                answer_key=score.answer_key,
                gold=score.gold,
            )

    def label(self, trajectory_id: str, gold: float) -> None:
        """The true score of a sample that is ready was looked at."""
        with self._file.change() as db:
            self._set(db, [trajectory_id], (SampleState.READY,), state=SampleState.READY, gold=gold)

    def drop(self, trajectory_id: str, reason: str, step: int, replacement: str = "") -> None:
        """A sample in flight or ready will not be trained on. If it is replaced, both happen or neither.

        Args:
            trajectory_id: the sample.
            reason: why; reports count by it, so it should not name the sample.
            step: the step that it could have been trained at next (weight version plus 1).
            replacement: a sample of the same group that is in flight from now on; empty for none.
        """
        if not reason:
            raise self._file.refusal(f"sample {trajectory_id} cannot be dropped without a reason")
        states = (SampleState.IN_FLIGHT, SampleState.READY)
        with self._file.change() as db:
            self._set(db, [trajectory_id], states, state=SampleState.DROPPED, reason=reason, step=step)
            if replacement:
                db.execute(
                    "INSERT INTO samples (trajectory_id, group_index, state) "
                    "SELECT ?, group_index, ? FROM samples WHERE trajectory_id = ?",
                    (replacement, SampleState.IN_FLIGHT, trajectory_id),
                )

    def commit_step(self, step: int, trajectory_ids: Sequence[str]) -> None:
        """These samples were trained on by the update that made weight version ``step``. On the disk when it returns.

        Doing it again with the same samples changes nothing. Groups are trained whole: what a group has besides these
        samples must have been dropped.

        Raises:
            LedgerError: a sample is not ready (it may have been trained on before) or given twice, ``step`` was
                committed with other samples or does not follow the last one, or a group would be split.
        """
        with self._file.change(durable=True) as db:
            known = db.execute("SELECT trajectory_ids FROM steps WHERE step = ?", (step,)).fetchone()
            if known is not None:
                if unpack_ids(known[0]) == sorted(trajectory_ids):
                    return
                raise self._file.refusal(f"step {step} was committed before, with other samples")
            if step != _last_step(db) + 1:
                raise self._file.refusal(f"step {step} committed, the next one is {_last_step(db) + 1}")
            self._set(db, trajectory_ids, (SampleState.READY,), state=SampleState.TRAINED, step=step)
            # "IS NOT" and not "!=", since the step of a sample that still waits is null.
            split = db.execute(
                "SELECT trajectory_id, state, step FROM samples WHERE state != 'dropped' AND step IS NOT ?1 AND "
                "group_index IN (SELECT group_index FROM json_each(?2) JOIN samples ON trajectory_id = value)",
                (step, json.dumps(list(trajectory_ids))),
            ).fetchone()
            if split is not None:
                raise self._file.refusal(f"step {step} would split a group: its sample {split[0]} is {split[1]}")
            row = (step, len(trajectory_ids), pack_ids(trajectory_ids), time.time())
            db.execute("INSERT INTO steps VALUES (?, ?, ?, ?)", row)

    def mark_checkpoint(self, step: int) -> None:
        """The checkpoint after update ``step`` is complete. On the disk when it returns; twice is once.

        Raises:
            LedgerError: no such step was committed.
        """
        with self._file.change(durable=True) as db:
            if not 0 <= step <= _last_step(db):
                raise self._file.refusal(
                    f"checkpoint of step {step}, the last step that was committed is {_last_step(db)}"
                )
            db.execute("INSERT OR IGNORE INTO checkpoints VALUES (?, ?)", (step, time.time()))

    def rollback(self, step: int) -> int:
        """Go back to the checkpoint after update ``step``; 0 is the start of the run. On the disk when it returns.

        Groups that were finished by then (each sample trained or dropped at a step up to ``step``) stay. All others
        are pending again, whole, so that they are generated anew, and replacements among them are forgotten until they
        are needed again. The steps that this undoes are kept for reports.

        Returns:
            How many samples are pending that were not.

        Raises:
            LedgerError: fewer steps than ``step`` were committed: this is not the ledger of that checkpoint.
        """
        with self._file.change(durable=True) as db:
            if not 0 <= step <= _last_step(db):
                raise self._file.refusal(
                    f"it knows {_last_step(db)} trained steps and cannot go on from a checkpoint of step {step}. It "
                    "was deleted, replaced or is that of another run: restore it, or start a new run"
                )
            # The groups in which anything is unfinished, or was finished after that checkpoint.
            num_samples = db.execute(
                "UPDATE samples SET state = 'pending', step = NULL, num_tokens = NULL, reason = NULL, "
                "observed = NULL, answer_key = NULL, gold = NULL "
                "WHERE state != 'pending' AND group_index IN "
                "(SELECT group_index FROM samples WHERE state NOT IN ('trained', 'dropped') OR step > ?)",
                (step,),
            ).rowcount
            num_samples -= db.execute(
                "DELETE FROM samples WHERE trajectory_id IN (SELECT trajectory_id FROM samples "
                f"JOIN groups USING (group_index) WHERE state = 'pending' AND {IS_REPLACEMENT})"
            ).rowcount
            row = (step, num_samples, time.time())
            number = db.execute("INSERT INTO rollbacks VALUES (NULL, ?, ?, ?)", row).lastrowid
            columns = "step, num_samples, trajectory_ids, committed_at"
            db.execute(
                f"INSERT INTO undone_steps SELECT ?, {columns} FROM steps WHERE step > ? ORDER BY step", (number, step)
            )
            for table in ("steps", "checkpoints"):
                db.execute(f"DELETE FROM {table} WHERE step > ?", (step,))
        return num_samples

    def together(self, changes: Iterable[Callable[[], None]]) -> None:
        """Make several changes, each by a method of this, in one transaction: all of them happen, or none.

        Raises:
            LedgerError: one was refused.
        """
        with self._file.together():
            for change in changes:
                change()

    def position(self) -> Position:
        """Where generation goes on; see :class:`Position`."""
        # As a change, though it only reads: a controller that has been replaced must not go on from here.
        with self._file.change() as db:
            waiting = db.execute("SELECT group_index FROM samples WHERE state NOT IN ('trained', 'dropped')")
            return Position(_next_index(db), tuple(sorted({index for (index,) in waiting})))

    @property
    def fence(self) -> Fence:
        """Of this writer, for what it changes beside the ledger."""
        return self._file.fence

    def close(self) -> None:
        """Release the file. Closing twice is allowed."""
        self._file.close()

    def _set(
        self,
        db: sqlite3.Connection,
        trajectory_ids: Sequence[str],
        allowed: Sequence[SampleState],
        **columns: str | int | float | None,
    ) -> None:
        """Write ``columns`` of samples that must each be in a state that is ``allowed``."""
        change = ", ".join(f"{column} = ?" for column in columns)
        places = ", ".join("?" * len(allowed))
        statement = f"UPDATE samples SET {change} WHERE trajectory_id = ? AND state IN ({places})"
        # One statement a sample: how many rows it changed says whether the sample was in a state that may change.
        for name in trajectory_ids:
            if db.execute(statement, (*columns.values(), name, *allowed)).rowcount == 1:
                continue
            found = db.execute("SELECT state, step FROM samples WHERE trajectory_id = ?", (name,)).fetchone()
            if found is None:
                raise self._file.refusal(f"sample {name} was never admitted")
            when = "" if found[1] is None else f" at step {found[1]}"
            raise self._file.refusal(f"sample {name} is {found[0]}{when} and cannot become {columns['state']}")


def _next_index(db: sqlite3.Connection) -> int:
    (highest,) = db.execute("SELECT MAX(group_index) FROM groups").fetchone()
    return 0 if highest is None else int(highest) + 1


def _last_step(db: sqlite3.Connection) -> int:
    (last,) = db.execute("SELECT MAX(step) FROM steps").fetchone()
    return int(last or 0)
