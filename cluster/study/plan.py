"""What a study will do, in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cluster.study.cells import PlannedCell
from cluster.study.config import StudyConfig
from cluster.study.results import read_results


def plan_lines(study: StudyConfig, cells: Sequence[PlannedCell]) -> list[str]:
    """Each cell with what has become of it, and how many are left.

    Raises:
        UserError: cells.jsonl has a line that is no result.
    """
    results = read_results(Path(study.output))
    lines = []
    for planned in cells:
        result = results.get(planned.cell)
        state = "to do" if result is None else "done" if result.error is None else f"failed: {result.error}"
        lines.append(f"{planned.cell.name}: {state}")
    num_left = sum(planned.cell not in results for planned in cells)
    num_engines = len({planned.engine for planned in cells})
    axes = study.axes
    lines.append(
        f"{len(axes.algorithm)} algorithms x {len(axes.task)} tasks x {len(axes.noise)} noises x "
        f"{len(study.seeds)} seeds: {len(cells)} cells, {num_left} to do; {num_engines} engine settings"
    )
    return lines
