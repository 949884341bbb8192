"""Losses of scalar critics, and clipping of the step a critic may take."""

from __future__ import annotations

import torch
from torch import Tensor


def value_loss(
    values: Tensor, returns: Tensor, old_values: Tensor | None = None, value_clip: float | None = None
) -> Tensor:
    """``1/2 max((V - R)^2, (V_old + clip(V - V_old, -e, e) - R)^2)`` (PPO's value loss; 2307.04964), elementwise.

    Args:
        values: [...], carries the gradient.
        returns: broadcastable to ``values``, detached here.
        old_values: [...] of the critic before the update, detached here; needed with ``value_clip``.
        value_clip: e in reward units, or None for plain squared error.
    """
    returns = returns.detach()
    plain = (values - returns).square()
    if value_clip is None:
        return plain / 2
    if old_values is None:
        raise ValueError("value_clip needs old_values")
    return torch.maximum(plain, (clipped_step(values, old_values, value_clip) - returns).square()) / 2


def clipped_step(values: Tensor, old_values: Tensor, clip: float) -> Tensor:
    """``V_old + clip(V - V_old, -e, e)``, elementwise; the gradient is 0 where the step is cut."""
    old_values = old_values.detach()
    return old_values + (values - old_values).clamp(-clip, clip)


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """``1 - Var(R - V) / Var(R)`` over [n] states in float64; 0 if the returns do not vary (nothing to explain)."""
    if returns.numel() < 2:
        return 0.0
    variance = float(returns.double().var(correction=0))
    if variance <= 0.0:
        return 0.0
    return 1.0 - float((returns.double() - values.double()).var(correction=0)) / variance
