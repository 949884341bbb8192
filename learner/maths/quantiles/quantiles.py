"""Quantile functions as vectors: levels and read-outs; the loss itself is in ``quantile_huber.py``.

A quantile function is a vector of M values in the last axis, ascending, at the midpoint levels
tau_i = (2i - 1) / (2M) (our choice; i / M would make tau_M the essential supremum). Leading axes are free.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from learner.maths.quantiles.huber import quantile_huber_loss, quantile_huber_per_level

__all__ = [
    "midpoint_taus",
    "quantile_mean",
    "tail_count",
    "lower_cvar",
    "upper_cvar",
    "crossing_fraction",
    "spread",
    "quantile_at",
    "share_weights",
    "quantile_huber_loss",
    "quantile_huber_per_level",
]


def midpoint_taus(
    num_quantiles: int, device: torch.device | str | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Levels tau_i = (2i - 1) / (2M), [M] ascending (1710.10044 lemma 2)."""
    if num_quantiles < 1:
        raise ValueError(f"num_quantiles must be at least 1, got {num_quantiles}")
    levels = (2 * torch.arange(1, num_quantiles + 1, device=device, dtype=torch.float64) - 1) / (2 * num_quantiles)
    return levels.to(dtype)


# --- read-outs ---------------------------------------------------------------------------------------------------


def quantile_mean(quantile_values: Tensor) -> Tensor:
    """Mean of the distribution, [... M] -> [...]."""
    return quantile_values.mean(dim=-1)


def tail_count(num_quantiles: int, share: float) -> int:
    """Number of levels tau_i <= share, the size of I_lo (and by symmetry of I_up = {tau_i >= 1 - share}).

    Raises:
        ValueError: the share is not in (0, 1] or so small that no level lies below it.
    """
    count = math.floor(num_quantiles * share + 0.5 + 1e-9)  # tau_i <= share iff i <= M * share + 1/2
    if not 0.0 < share <= 1.0 or count < 1:
        raise ValueError(f"a tail share of {share} holds none of {num_quantiles} quantile levels; it must be in (0, 1]")
    return min(count, num_quantiles)


def lower_cvar(quantile_values: Tensor, alpha: float) -> Tensor:
    """C(q) of Eq 5 (2512.03847, our reading): mean of the quantiles in I_lo = {i: tau_i <= alpha}; [... M] -> [...].

    Equal to the conditional value at risk at share alpha whenever alpha * M is an integer.
    """
    return quantile_values[..., : tail_count(quantile_values.shape[-1], alpha)].mean(dim=-1)


def upper_cvar(quantile_values: Tensor, beta: float) -> Tensor:
    """U(q) of Eq 6 (2512.03847, our reading): mean of the quantiles in I_up = {i: tau_i >= 1 - beta}."""
    return quantile_values[..., -tail_count(quantile_values.shape[-1], beta) :].mean(dim=-1)


def crossing_fraction(quantile_values: Tensor) -> Tensor:
    """Share of neighbouring pairs that are out of order, [... M] -> [...]; 0 for M = 1. Detached."""
    if quantile_values.shape[-1] < 2:
        return quantile_values.new_zeros(quantile_values.shape[:-1])
    values = quantile_values.detach()
    crossed = (values[..., 1:] < values[..., :-1]).count_nonzero(dim=-1)
    return crossed.to(values.dtype) / (values.shape[-1] - 1)


def spread(values: Tensor, dim: int = -1) -> Tensor:
    """Variance along one axis, divided by n; quiet on tensors without rows, where ``torch.var`` warns."""
    return (values - values.mean(dim=dim, keepdim=True)).square().mean(dim=dim)


def quantile_at(quantile_values: Tensor, level: float) -> Tensor:
    """The quantile function at any level: linear between midpoint levels, constant beyond the outer ones."""
    num = quantile_values.shape[-1]
    position = min(max(level * num - 0.5, 0.0), float(num - 1))
    low = min(math.floor(position), max(num - 2, 0))
    high = min(low + 1, num - 1)
    fraction = position - low
    return quantile_values[..., low] * (1.0 - fraction) + quantile_values[..., high] * fraction


def share_weights(num_quantiles: int, low: float, high: float) -> list[float]:
    """Weights (sum 1) of the mean over the exact probability interval [low, high], each atom holding mass 1/M.

    ``share_weights(M, 0, alpha)`` is the exact lower CVaR for any alpha: an atom cut by the boundary counts in part.
    """
    if not 0.0 <= low < high <= 1.0:
        raise ValueError(f"need 0 <= low < high <= 1, got low={low}, high={high}")
    masses = [
        max(0.0, min(high * num_quantiles, i + 1.0) - max(low * num_quantiles, float(i))) for i in range(num_quantiles)
    ]
    total = math.fsum(masses)
    return [mass / total for mass in masses]
