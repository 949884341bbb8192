"""What has been seen of each cell: calls of the reward, ones among them, its prompt, its gold label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Rate = float | Array
"""One rate for all cells, or one for each, [cell], where rewards of several sources are mixed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellCounts:
    """Counts of some cells; all [cell].

    Attributes:
        calls: how often the reward scored the cell, >= 0; fractions are allowed, so that old calls can fade.
        ones: sum of its scores in [0, 1], at most ``calls``.
        prompts: number of the prompt of each cell, >= 0, in any order and with gaps.
        gold: true reward 0 or 1 as labelled, NaN where nobody was asked.
    """

    calls: Array
    ones: Array
    prompts: IntArray
    gold: Array

    def __post_init__(self) -> None:
        """Raise ValueError for counts that no cells can have."""
        if not self.calls.shape == self.ones.shape == self.prompts.shape == self.gold.shape or self.calls.ndim != 1:
            raise ValueError("calls, ones, prompts and gold must be one-dimensional and of one length")
        if not bool(np.all((self.ones >= 0.0) & (self.ones <= self.calls) & np.isfinite(self.calls))):
            raise ValueError("each cell must have 0 <= ones <= calls, finite")
        if bool(np.any(self.prompts < 0)):
            raise ValueError("numbers of prompts must not be negative")
        if not bool(np.all(np.isnan(self.gold) | (self.gold == 0.0) | (self.gold == 1.0))):
            raise ValueError("gold labels must be 0, 1 or NaN")

    @classmethod
    def of(
        cls,
        calls: npt.ArrayLike,
        ones: npt.ArrayLike,
        prompts: npt.ArrayLike | None = None,
        gold: npt.ArrayLike | None = None,
    ) -> CellCounts:
        """Build from anything array-like; by default each cell has a prompt of its own, and nobody was asked."""
        n = np.asarray(calls, dtype=np.float64)
        return cls(
            calls=n,
            ones=np.asarray(ones, dtype=np.float64),
            prompts=np.arange(n.size) if prompts is None else np.asarray(prompts, dtype=np.int64),
            gold=np.full(n.shape, np.nan) if gold is None else np.asarray(gold, dtype=np.float64),
        )

    def __len__(self) -> int:
        return self.calls.size

    def has_gold(self) -> npt.NDArray[np.bool_]:
        """[cell] whether its true reward was asked for."""
        return ~np.isnan(self.gold)

    def dense_prompts(self) -> tuple[IntArray, int]:
        """[cell] numbers of prompts without gaps, in the order of the given ones, and how many there are."""
        distinct, dense = np.unique(self.prompts, return_inverse=True)
        return dense.astype(np.int64), distinct.size


def require_probability(**rates: Rate) -> None:
    """Raise ValueError for the first that is outside [0, 1] anywhere, NaN included."""
    for name, rate in rates.items():
        if not bool(np.all((np.asarray(rate) >= 0.0) & (np.asarray(rate) <= 1.0))):
            raise ValueError(f"{name} must be in [0, 1], got {rate}")
