"""Statistics over all ranks, as far as pure maths needs to know of ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class Collective(Protocol):
    """The ranks that share one global batch, as far as pure maths needs to know of them."""

    def gather(self, values: Tensor) -> Tensor:
        """Concatenate the ranks' tensors along the first axis, in rank order; lengths may differ."""

    @property
    def rank(self) -> int:
        """Index of this process."""


class SingleProcess:
    """A collective of one."""

    rank = 0

    def gather(self, values: Tensor) -> Tensor:
        """The values themselves."""
        return values


def apply_globally(function: Callable[..., Tensor], world: Collective, *columns: Tensor) -> Tensor:
    """Apply ``function`` to columns gathered over all ranks and return this rank's part of the result.

    Args:
        function: maps tensors of global length n to one tensor of length n.
        columns: this rank's tensors, all of the same length along the first axis.
    """
    length = columns[0].shape[0]
    lengths = world.gather(torch.tensor([length]))
    start = int(lengths[: world.rank].sum())
    return function(*(world.gather(column) for column in columns))[start : start + length]
