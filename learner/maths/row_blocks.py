"""Rows of different lengths that lie one after another, in blocks of about one length that attention can take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK_COST = 24_576
"""What one more call of attention costs, in pairs of tokens that look at each other (our choice: of the size of what a
call and its backward pass cost beside their arithmetic). Rows of nearly one length stay in one block."""


@dataclass(frozen=True)
class Block:
    """Rows that lie one after another and that attention takes side by side.

    Attributes:
        num_rows, longest, num_tokens: how many, tokens of the longest, and of all.
        places: [num_tokens], where each token lies in [num_rows * longest]; None where all rows are equally long.
    """

    num_rows: int
    longest: int
    num_tokens: int
    places: Tensor | None

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Self:
        """The block of rows of such lengths."""
        longest, total = max(lengths), sum(lengths)
        places = None
        if longest * len(lengths) > total:
            position = torch.arange(longest, device=device)
            is_real = position < torch.tensor(lengths, device=device)[:, None]
            places = is_real.reshape(-1).nonzero().squeeze(-1)
        return cls(len(lengths), longest, total, places)

    def side_by_side(self, x: Tensor) -> Tensor:
        """[1 head n dim] -> [rows head longest dim]; 0 behind the end of a row, where no real token looks."""
        tokens = x[0].transpose(0, 1)
        if self.places is not None:
            whole = tokens.new_zeros((self.num_rows * self.longest, *tokens.shape[1:]))
            tokens = whole.index_copy(0, self.places, tokens)
        return tokens.reshape(self.num_rows, self.longest, *tokens.shape[1:]).transpose(1, 2)

    def one_after_another(self, x: Tensor) -> Tensor:
        """[rows longest head dim] -> [1 n head dim]; inverse of :meth:`side_by_side` but for the order of the axes."""
        tokens = x.flatten(0, 1)
        return (tokens if self.places is None else tokens.index_select(0, self.places))[None]


def cut_into_blocks(lengths: Sequence[int]) -> list[int]:
    """Where to cut neighbouring rows so that attention costs least: ``rows * longest ** 2 + BLOCK_COST`` a block.

    Returns:
        the end of each block, ascending.
    """
    num, squares = len(lengths), np.asarray(lengths, dtype=np.int64)
    if num * max(lengths) ** 2 - int((squares**2).sum()) <= BLOCK_COST:
        return [num]  # nothing to win, and nothing to look for
    best, chosen = np.zeros(num + 1, dtype=np.int64), np.zeros(num + 1, dtype=np.int64)
    counts = np.arange(1, num + 1)
    for start in range(num - 1, -1, -1):
        longest = np.maximum.accumulate(squares[start:])
        costs = counts[: num - start] * longest**2 + BLOCK_COST + best[start + 1 :]
        pick = int(np.argmin(costs))
        best[start], chosen[start] = costs[pick], start + 1 + pick
    return ends_along(chosen)


def ends_along(chosen: NDArray[np.int64]) -> list[int]:
    """The ends of a cut's blocks, from row 0 on; ``chosen`` [rows + 1] says where the block at a row ends."""
    ends, at = [], 0
    while at < len(chosen) - 1:
        at = int(chosen[at])
        ends.append(at)
    return ends
