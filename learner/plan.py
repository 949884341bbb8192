"""Who trains on which rows of a global batch, and in which micro-batches."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from learner.batch import MIN_PADDED_TOKENS
from learner.maths.row_blocks import ends_along

Rows = tuple[int, ...]
"""Row numbers of the global batch."""

LEAST_COST = 100
"""What a micro-batch of a large model costs beside its tokens, in tokens: gradients that are added up, and a processor
that fewer tokens at a time do not use well."""
SMALL_MODEL = 5e7
"""Parameters of a model of which one token takes as long as all else that a micro-batch needs: calls, small operations
and metrics. Both numbers are from one core and ``python -m benchmarks.learner_update --fixed-cost``; see
docs/benchmarks.md."""
GPU_COST = 2048
"""Least cost on a GPU, which computes fewer tokens in no less time (our choice, not measured)."""


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """Which trajectory is trained on where and when.

    Every rank computes the same plan from the lengths alone, so no communication is needed. In one mini-batch every
    rank has the same number of micro-batches, as DeepSpeed's collective operations want it; where a mini-batch has
    fewer rows than there are ranks, some are empty.

    Attributes:
        micro_batches: ``micro_batches[minibatch][rank][i]`` are row numbers of the global batch.
        lengths: tokens of each trajectory.
        packed: whether rows are run without padding.
    """

    micro_batches: tuple[tuple[tuple[Rows, ...], ...], ...]
    lengths: tuple[int, ...]
    packed: bool = False

    @property
    def num_minibatches(self) -> int:
        """Optimiser steps in one epoch."""
        return len(self.micro_batches)

    def minibatch_rows(self, minibatch: int) -> list[int]:
        """All rows of one mini-batch, over all ranks."""
        return [row for rank in self.micro_batches[minibatch] for micro in rank for row in micro]

    def rank_rows(self, rank: int) -> list[int]:
        """All rows of one rank, in the order in which it trains on them."""
        return [row for minibatch in self.micro_batches for micro in minibatch[rank] for row in micro]

    def rank_slices(self, rank: int) -> list[list[slice]]:
        """Where each micro-batch of each mini-batch lies in :meth:`rank_rows`; empty ones are empty slices."""
        slices, start = [], 0
        for minibatch in self.micro_batches:
            sizes = [len(micro) for micro in minibatch[rank]]
            ends = list(itertools.accumulate(sizes, initial=start))
            slices.append([slice(a, b) for a, b in itertools.pairwise(ends)])
            start = ends[-1]
        return slices

    def num_within(self, minibatch: int, max_tokens: int) -> int:
        """How many of a mini-batch's first micro-batches have at most ``max_tokens`` together, with their padding.

        It is the least such number over ranks, so that all of them come to the same.
        """
        found = []
        for micros in self.micro_batches[minibatch]:
            size = packed_tokens if self.packed else padded_tokens
            sums = itertools.accumulate(size(self.lengths, micro) for micro in micros)
            found.append(sum(total <= max_tokens for total in sums))
        return min(found)


def fixed_cost_of(num_parameters: int, on_gpu: bool) -> int:
    """What a micro-batch of padded rows costs beside its tokens, in tokens.

    Args:
        num_parameters: of the largest model.
    """
    return round(max(LEAST_COST + SMALL_MODEL / max(1, num_parameters), GPU_COST if on_gpu else 0))


def plan_batch(
    lengths: Sequence[int],
    num_ranks: int,
    num_minibatches: int,
    micro_batch_tokens: int,
    seed: int,
    fixed_cost: int = LEAST_COST,
    attention: float | None = None,
) -> BatchPlan:
    """Split a global batch into mini-batches, ranks and micro-batches.

    Mini-batches are drawn first and do not depend on the number of ranks; their sizes differ by at most one. There are
    never more mini-batches than trajectories.

    Args:
        lengths: tokens of each trajectory.
        micro_batch_tokens: most tokens in one micro-batch, with its padding (a longer trajectory goes alone).
        seed: of the shuffle before the mini-batches are cut; unused if there is only one.
        fixed_cost: see :func:`fixed_cost_of`; of padded rows.
        attention: of rows without padding, see :func:`plan_packed`; None for padded rows.

    Raises:
        ValueError: no trajectories.
    """
    if not lengths:
        raise ValueError("cannot train on an empty batch")
    order = list(range(len(lengths)))
    count = min(num_minibatches, len(order))
    if count > 1:
        random.Random(seed).shuffle(order)
    members = [order[index * len(order) // count : (index + 1) * len(order) // count] for index in range(count)]
    if attention is None:
        plans = [plan_minibatch(lengths, rows, num_ranks, micro_batch_tokens, fixed_cost) for rows in members]
    else:
        plans = [plan_packed(lengths, rows, num_ranks, micro_batch_tokens, attention) for rows in members]
    return BatchPlan(tuple(plans), tuple(lengths), packed=attention is not None)


def plan_packed(
    lengths: Sequence[int], rows: Sequence[int], num_ranks: int, max_tokens: int, attention: float = 0.0
) -> tuple[tuple[Rows, ...], ...]:
    """Rows of each micro-batch of each rank, ``[rank][i]``, where rows are run without padding.

    Then a micro-batch costs what its rows do, whatever their lengths, and each further one costs extra: there are as
    few as the budget allows. Rows are dealt out longest first, each to the rank that has least to compute and there
    into the micro-batch with fewest tokens; so ranks differ by no more than a row, but for those that are full.

    Args:
        max_tokens: of one micro-batch; a longer row goes alone.
        attention: what a row's attention costs, in units of its other arithmetic, for each token of its length.
    """
    order = sorted(rows, key=lambda i: (-lengths[i], i))
    least = -(-sum(min(lengths[row], max_tokens) for row in order) // (max_tokens * num_ranks))
    number = max(1, min(least, len(order)))
    while (found := _dealt_out(lengths, order, num_ranks, number, max_tokens, attention)) is None:
        number += 1
    return found


def _dealt_out(
    lengths: Sequence[int], order: Sequence[int], num_ranks: int, number: int, max_tokens: int, attention: float
) -> tuple[tuple[Rows, ...], ...] | None:
    """:func:`plan_packed` with ``number`` micro-batches on each rank, or None if a row finds no room."""
    micros: list[list[list[int]]] = [[[] for _ in range(number)] for _ in range(num_ranks)]
    tokens = [[0] * number for _ in range(num_ranks)]
    loads = [0.0] * num_ranks
    for row in order:
        length = lengths[row]
        for rank in sorted(range(num_ranks), key=loads.__getitem__):
            place = min(range(number), key=tokens[rank].__getitem__)
            if not micros[rank][place] or tokens[rank][place] + length <= max_tokens:
                break
        else:
            return None
        micros[rank][place].append(row)
        tokens[rank][place] += length
        loads[rank] += length * (1.0 + attention * length)
    return tuple(tuple(map(tuple, rank)) for rank in micros)


def plan_minibatch(
    lengths: Sequence[int], rows: Sequence[int], num_ranks: int, max_tokens: int, fixed_cost: int = LEAST_COST
) -> tuple[tuple[Rows, ...], ...]:
    """Rows of each micro-batch of each rank, ``[rank][i]``.

    Rows are sorted by length, longest first, and cut into blocks; each block is dealt out to the ranks in pieces of
    neighbouring rows, which are their micro-batches of the same moment. All ranks then have the same number of them,
    about equally large. The cuts are those of least total cost. The larger a piece is, the less was given before to the
    rank that gets it.
    """
    order = sorted(rows, key=lambda i: (-lengths[i], i))
    ends = cut_blocks([lengths[row] for row in order], num_ranks, max_tokens, fixed_cost)
    ranks: list[list[Rows]] = [[] for _ in range(num_ranks)]
    loads = [0] * num_ranks
    for start, end in itertools.pairwise([0, *ends]):
        block = order[start:end]
        bounds = [len(block) * k // num_ranks for k in range(num_ranks + 1)]  # one row more where they are shorter
        pieces = [tuple(block[a:b]) for a, b in itertools.pairwise(bounds)]
        sizes = [padded_tokens(lengths, piece) for piece in pieces]
        largest_first = sorted(range(num_ranks), key=lambda k: (-sizes[k], k))
        lightest_first = sorted(range(num_ranks), key=lambda rank: (loads[rank], rank))
        for k, rank in zip(largest_first, lightest_first, strict=True):
            ranks[rank].append(pieces[k])
            loads[rank] += sizes[k]
    return tuple(map(tuple, ranks))


def cut_blocks(lengths: Sequence[int], num_ranks: int, max_tokens: int, fixed_cost: int) -> list[int]:
    """Where to cut rows into blocks, at least total cost, by dynamic programming.

    A block of n rows takes as long as its largest piece, at most ``ceil(n / num_ranks) * (its longest row) +
    fixed_cost``. A piece has at most ``max_tokens``, or one row.

    Args:
        lengths: descending.
        fixed_cost: of a block whatever its size, in tokens.

    Returns:
        the end of each block, ascending. Of equally good cuts the one with the longest blocks in front is taken.
    """
    num = len(lengths)
    best = np.zeros(num + 1, dtype=np.int64)  # of the rows from here on
    chosen = np.zeros(num + 1, dtype=np.int64)
    for start in range(num - 1, -1, -1):
        longest = max(lengths[start], MIN_PADDED_TOKENS)
        most = max(1, max_tokens // longest) * num_ranks
        counts = np.arange(1, min(most, num - start) + 1)
        costs = -(-counts // num_ranks) * longest + fixed_cost + best[start + 1 : start + 1 + len(counts)]
        pick = len(costs) - 1 - int(np.argmin(costs[::-1]))
        best[start], chosen[start] = costs[pick], start + 1 + pick
    return ends_along(chosen)


def micro_batches(lengths: Sequence[int], rows: Sequence[int], max_tokens: int) -> list[Rows]:
    """Rows of the micro-batches of one rank that has them all, of at most ``max_tokens`` padded tokens each."""
    return list(plan_minibatch(lengths, rows, 1, max_tokens)[0])


def packed_tokens(lengths: Sequence[int], rows: Sequence[int]) -> int:
    """What a rank computes for one micro-batch without padding; see :func:`padded_tokens`."""
    return sum(lengths[row] for row in rows) if rows else MIN_PADDED_TOKENS


def padded_tokens(lengths: Sequence[int], rows: Sequence[int]) -> int:
    """What a rank computes for one micro-batch; one without rows is a placeholder of a single short row."""
    return max(1, len(rows)) * max([MIN_PADDED_TOKENS, *(lengths[row] for row in rows)])
