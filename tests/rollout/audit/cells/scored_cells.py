"""Cells of a simulated reward with known error rates."""

from __future__ import annotations

import numpy as np

from rollout.audit.cells.counts import CellCounts


def scored_cells(
    rng: np.random.Generator,
    *,
    transient: tuple[float, float],
    persistent: tuple[float, float] = (0.0, 0.0),
    num_cells: int = 800,
    calls: tuple[int, int] = (1, 40),
    share: float = 0.4,
    gold_share: float = 0.0,
    exclusive: bool = False,
) -> CellCounts:
    """Four cells a prompt.

    Args:
        rng: draws everything.
        transient, persistent: P(error) on what is 0, and on what is 1.
        num_cells: a multiple of 4.
        calls: least and most calls of a cell.
        share: of cells that are right, or of prompts that have a right cell where cells are exclusive.
        gold_share: of cells with a gold label, at random.
        exclusive: the first cell of a prompt may be right, and no other.
    """
    prompts = np.arange(num_cells) // 4
    right = rng.random(num_cells) < share
    if exclusive:
        right &= np.arange(num_cells) % 4 == 0
    verdict = np.where(right, rng.random(num_cells) >= persistent[1], rng.random(num_cells) < persistent[0])
    n = rng.integers(calls[0], calls[1] + 1, size=num_cells)
    ones = rng.binomial(n, np.where(verdict, 1.0 - transient[1], transient[0]))
    gold = np.where(rng.random(num_cells) < gold_share, right, np.nan)
    return CellCounts.of(n, ones, prompts, gold)
