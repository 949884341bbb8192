"""Audit of a run by the scores that it has recorded: nothing is scored anew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from actors.ledger.errors import LedgerError
from actors.ledger.report import LEDGER_NAME
from actors.ledger.scored_cells import ScoredCell, read_scores
from rollout.audit.cells.counts import CellCounts
from rollout.audit.cells.rates import measure_rates
from rollout.audit.cells.report import RepeatReport
from rollout.component.mistakes import BadArgument, NothingRecorded


def audit_run(folder: Path, *, exclusive: bool = False) -> RepeatReport:
    """How the reward of a run errs, by its repeated scores and whatever true scores could be looked at.

    Args:
        folder: of the run, which may be going on.
        exclusive: at most one answer to a prompt is right.

    Raises:
        UserError: the ledger cannot be read, has no scores, or some that are neither 0 nor 1.
    """
    ledger = folder / LEDGER_NAME
    try:
        scores = read_scores(ledger)
    except LedgerError as error:
        raise NothingRecorded(str(error)) from error
    if not scores.cells:
        raise NothingRecorded(f"{ledger}: has no scores: no sample has one yet, or an earlier version made it")
    if scores.num_other:
        raise BadArgument(
            f"{ledger}: {scores.num_other} scores are neither 0 nor 1, and error rates are about right and wrong; give "
            "the configuration instead: its logged responses are then scored again"
        )
    return RepeatReport(
        num_scores=sum(cell.num_scores for cell in scores.cells),
        num_prompts=len({cell.prompt_id for cell in scores.cells}),
        num_contradictions=sum(len(cell.golds) > 1 for cell in scores.cells),
        rates=measure_rates(counts_of(scores.cells), exclusive=exclusive),
    )


def counts_of(cells: Sequence[ScoredCell]) -> CellCounts:
    """Counts by cell; a true score that is no verdict, or that others of its cell contradict, counts as unknown."""
    numbers = {name: index for index, name in enumerate(dict.fromkeys(cell.prompt_id for cell in cells))}
    return CellCounts.of(
        [cell.num_scores for cell in cells],
        [cell.sum_scores for cell in cells],
        [numbers[cell.prompt_id] for cell in cells],
        [cell.golds[0] if cell.golds in ((0.0,), (1.0,)) else math.nan for cell in cells],
    )
