"""Random streams of a trajectory, by name: what draws from one never meets the numbers of another.

A stream is named by (the trajectory's own seed, name, step), so a row draws the same numbers on whichever rank and in
whichever micro-batch it lands.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def stream_seeds(sample_seeds: Tensor, name: str, step: int = 0) -> Tensor:
    """The seed of each row's stream, [batch] int64 -> [batch] int64, at least 0.

    Args:
        sample_seeds: those of the trajectories.
        name: of the stream; every use has its own.
        step: optimiser step, for streams that are fresh in each.
    """

    def seed_of(sample_seed: int) -> int:
        # A hash, not a sum: with sums, a step of one stream is the name of another. Of a CPU generator's seed only the
        # low 32 bits count, so those have to be mixed as well.
        digest = hashlib.blake2b(f"{name}\x1f{step}\x1f{sample_seed}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1

    return torch.tensor([seed_of(seed) for seed in sample_seeds.tolist()], dtype=torch.int64)


def row_generators(sample_seeds: Tensor, name: str, step: int = 0) -> list[torch.Generator]:
    """One CPU generator per trajectory, at the start of its stream; arguments as for :func:`stream_seeds`."""
    seeds = stream_seeds(sample_seeds, name, step).tolist()
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def row_uniforms(sample_seeds: Tensor, name: str, width: int) -> Tensor:
    """``width`` uniform numbers in [0, 1) of each row, [batch width] float64."""
    draws = [torch.rand(width, generator=g, dtype=torch.float64) for g in row_generators(sample_seeds, name)]
    return torch.stack(draws) if draws else torch.zeros(0, width, dtype=torch.float64)
