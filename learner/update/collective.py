"""The ranks that share one global batch, on torch.distributed."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class TorchCollective:
    """Collective operations over the default process group; every rank must make the same calls in the same order.

    Without an initialised process group it is a collective of one.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.distributed = dist.is_initialized()
        self.rank = dist.get_rank() if self.distributed else 0
        self.size = dist.get_world_size() if self.distributed else 1

    def gather(self, values: Tensor) -> Tensor:
        """Concatenate the ranks' tensors along the first axis, in rank order; lengths may differ, even be 0.

        Every rank's tensor must have the same type and the same axes after the first. The result is detached and on
        the device of ``values``.
        """
        if self.size == 1:
            return values.detach()
        local = values.detach().to(self.device).contiguous()
        length = torch.tensor([local.shape[0]], device=self.device)
        lengths = [torch.zeros_like(length) for _ in range(self.size)]
        dist.all_gather(lengths, length)
        counts = [int(n) for n in lengths]
        padded = local.new_zeros((max(counts), *local.shape[1:]))
        padded[: local.shape[0]] = local
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        if padded.numel():
            dist.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)]).to(values.device)

    def gather_objects(self, value: Any) -> list[Any]:
        """Every rank's (small, picklable) object, in rank order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.all_reduce(torch.zeros(1, device=self.device))
