"""Rewards with few values, such as 0 and 1. Their values are outcomes: none of them is an outlier of the others."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def outcomes(values: Tensor, num_samples: int) -> Tensor | None:
    """The distinct values, [k] ascending, where they are so few that the reward is discrete; None where they are not.

    At most the square root of the number of samples, and two in any case (our choice): draws from a continuous
    distribution do not repeat, and those of a discrete one do so soon.

    Args:
        values: [n] of all ranks, n at least ``num_samples`` where a sample is repeated (for each of its tokens).
        num_samples: independent ones among them.
    """
    distinct = values.unique()
    return distinct if 0 < len(distinct) <= max(2, math.isqrt(num_samples)) else None


def nearest(values: Tensor, allowed: Tensor) -> Tensor:
    """Each value's nearest of ``allowed`` ([k] ascending), of any shape; the lower one where both are as near."""
    middles = (allowed[1:] + allowed[:-1]) / 2
    return allowed[torch.bucketize(values, middles)]
