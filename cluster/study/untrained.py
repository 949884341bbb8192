"""A row for no training at all: what the starting model scores, which every cell evaluates before its first step."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from cluster.study.config import NO_RL, Cell, StudyConfig
from cluster.study.results import CellResult


def with_no_rl(study: StudyConfig, results: Mapping[Cell, CellResult]) -> tuple[StudyConfig, Mapping[Cell, CellResult]]:
    """The study and its results with one more method, whose curve stays where the baseline's begins.

    It is of the same seed, task and noise, so pairs and intervals are as of any method; no cell is run for it. Without
    ``report.no_rl`` both are returned as they are.
    """
    if not study.report.no_rl:
        return study, results
    found = dict(results)
    for task, noise, seed in itertools.product(study.axes.task, study.axes.noise, study.seeds):
        trained = results.get(Cell(algorithm=study.baseline, task=task, noise=noise, seed=seed))
        if trained is not None and trained.error is None and trained.curve:
            cell = trained.cell.model_copy(update={"algorithm": NO_RL})
            curve = tuple(point.model_copy(update={"values": trained.curve[0].values}) for point in trained.curve)
            found[cell] = trained.model_copy(update={"cell": cell, "curve": curve, "cpu_s": None})
    axes = study.axes.model_copy(update={"algorithm": {**study.axes.algorithm, NO_RL: {}}})
    return study.model_copy(update={"axes": axes}), found
