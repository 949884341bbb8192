"""Putting the last axis of a tensor in ascending order, fast on a CPU and with a gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def ascending_order(values: Tensor) -> Tensor:
    """Indices that make the last axis ascending, equal values in any order, NaN at an end.

    On a CPU, float32 takes less than a tenth of the time of ``argsort``: numpy sorts 64-bit integers by vector
    instructions where the processor has them, and a float with its index behind it is one.
    """
    values = values.detach()
    if values.device.type != "cpu" or values.dtype not in (torch.float32, torch.float64):
        return values.argsort(dim=-1)
    if values.dtype == torch.float64:
        return torch.from_numpy(np.argsort(values.numpy(), axis=-1))
    bits = values.contiguous().view(torch.int32)
    flipped = (bits >> 31).bitwise_and_(0x7FFFFFFF).bitwise_xor_(bits)  # in the order of the floats, negative ones too
    keys = flipped.long().bitwise_left_shift_(32).bitwise_or_(torch.arange(values.shape[-1]))
    keys.numpy().sort(axis=-1)
    return keys.bitwise_and_(0xFFFFFFFF)


def ascending(values: Tensor) -> Tensor:
    """The last axis in ascending order; gradients follow the permutation."""
    result: Tensor = _Ascending.apply(values)
    return result


class _Ascending(Function):
    """Knows that its indices are a permutation: the backward pass writes each entry once and need not add to zeros."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        order = ascending_order(values)
        ctx.save_for_backward(order)
        return values.gather(-1, order)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (order,) = ctx.saved_tensors
        return torch.empty_like(upstream).scatter_(-1, order, upstream)
