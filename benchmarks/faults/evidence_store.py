"""Has what evidence remembers counted each score once? Compared with the ledger, by answer.

Both are kept apart: the learner counts scores that it trains on, in its checkpoint, and the controller writes down what
became of each sample, in the ledger.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch

from actors.ledger.file import open_for_reading
from actors.ledger.report import LEDGER_NAME
from actors.ledger.scored_cells import BY_ANSWER
from learner.storage.manifest import find_newest_complete

Counts = list[tuple[float, float]]
"""Number and sum of the scores of each answer, in ascending order."""

EVIDENCE = {"algorithm": {"reward_correction": ["evidence"]}, "reward": {"gold_labels": {"share": 0.3}}}
"""Sections of a configuration that remembers."""

_RECORDED = f"""
SELECT COUNT(*), TOTAL(observed) FROM samples JOIN groups USING (group_index) WHERE state = 'trained' AND step <= ?
{BY_ANSWER}
"""


def remembered(checkpoint: Path) -> dict[str, Any]:
    """State of ``evidence``, the only correction of the run, in a checkpoint."""
    state = torch.load(checkpoint / "state" / "rank-0.pt", weights_only=True)
    (evidence,) = state["algorithm"]["corrections"]
    return cast(dict[str, Any], evidence)


def remembered_and_recorded(run_dir: Path) -> tuple[Counts, Counts]:
    """What the newest checkpoint has counted, and what the ledger says was trained on until then."""
    newest, _ = find_newest_complete(run_dir / "checkpoints")
    assert newest is not None
    columns = (remembered(newest)["cells"][name].tolist() for name in ("num_scores", "sum_scores"))
    with open_for_reading(run_dir / LEDGER_NAME) as ledger:
        recorded = ledger.execute(_RECORDED, (int(newest.name.rpartition("-")[2]),)).fetchall()
    return sorted(zip(*columns, strict=True)), sorted(recorded)
