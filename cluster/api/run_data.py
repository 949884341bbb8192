"""A run's folder as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from actors.ledger.all_samples import read_samples
from actors.ledger.errors import LedgerError
from actors.ledger.report import LEDGER_NAME
from actors.ledger.scored_cells import read_scores
from cluster.api.tables import cell_frame, event_frame, ledger_frame, metric_frame, token_frame, trajectory_frame
from cluster.report.diagnosis.base import Finding
from cluster.report.diagnosis.diagnose import diagnose
from cluster.report.run_record import RunRecord, find_run_folder, read_run
from cluster.report.verdict import Verdict, verdict
from rollout.component.mistakes import NothingRecorded

Read = TypeVar("Read")


def load_run(run: str | Path) -> Run:
    """Read a run, which may be going on: its folder, or its name in ``runs``. Nothing of it is changed.

    Raises:
        UserError: there is no such run, it has done no step and no evaluation yet, or a line of it is damaged.
    """
    return Run(read_run(find_run_folder(str(run))))


class Run:
    """What a run has written, as it was when it was loaded. Tables are made when they are first asked for.

    What compares with true scores is left out where a run knew none, as in ``dvpo report``; :attr:`problems` says so.

    Attributes:
        record: everything that ``dvpo report`` looks at.
    """

    def __init__(self, record: RunRecord) -> None:
        self.record = record

    def __repr__(self) -> str:
        done, planned = self.record.metrics.last_step, self.record.num_steps
        return f"<Run {self.name!r}: {done} of {'?' if planned is None else planned} steps>"

    @property
    def name(self) -> str:
        """Its name."""
        return self.record.name

    @property
    def folder(self) -> Path:
        """Its folder."""
        return self.record.folder

    @property
    def config(self) -> Mapping[str, Any]:
        """``config.yaml`` as nested mappings."""
        return self.record.settings.values

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be read or was not recorded, a sentence each."""
        return tuple(self.record.problems)

    @cached_property
    def verdict(self) -> Verdict:
        """How it ended and what it learned: ``state``, ``headline`` and ``facts``."""
        return verdict(self.record)

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What looks wrong, as ``dvpo explain`` says it, with evidence and next steps."""
        return tuple(diagnose(self.record).findings)

    @cached_property
    def metrics(self) -> pa.Table:
        """A row for each line of ``metrics.jsonl``: ``step``, ``time`` (seconds since 1970), one column a key."""
        return metric_frame(self.record.metrics)

    @cached_property
    def trajectories(self) -> pa.Table:
        """A row for each logged trajectory: texts, scores, weight versions."""
        return trajectory_frame(self.record.trajectories)

    @cached_property
    def tokens(self) -> pa.Table:
        """A row for each recorded token: advantage, log-probabilities in nats, the critic's ``values[head][level]``."""
        return token_frame(self.record.trajectories)

    @cached_property
    def events(self) -> pa.Table:
        """A row for each line of ``events.jsonl``."""
        return event_frame(self.record.events)

    @cached_property
    def ledger(self) -> pa.Table:
        """A row for each sample that the run has asked for: what became of it, its score, its true score if looked at.

        Raises:
            UserError: the run has no ledger, or one that cannot be read.
        """
        return ledger_frame(self._of_ledger(read_samples))

    @cached_property
    def cells(self) -> pa.Table:
        """A row for each answer to a prompt: how often it was scored, the sum of its scores, its true scores.

        Raises:
            UserError: as for :attr:`ledger`.
        """
        return cell_frame(self._of_ledger(read_scores).cells)

    def _of_ledger(self, read: Callable[[Path], Read]) -> Read:
        path = self.folder / LEDGER_NAME
        if not path.is_file():
            raise NothingRecorded(
                f"{self.folder} has no {LEDGER_NAME}: the run did not begin to train, or it was removed"
            )
        try:
            return read(path)
        except LedgerError as error:
            raise NothingRecorded(f"{self.folder}: the ledger cannot be read: {error}") from error
