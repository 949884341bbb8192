"""Linear read-outs of a quantile function: weights [M] >= 0 with sum 1 that turn quantiles into a scalar value.

For any such weights, the scalar GAE of ``sum_i w_i Q^i`` is ``sum_i w_i A^i`` of the quantile-wise GAE (F1, our
derivation), so a read-out is all that a scalar advantage needs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from learner.maths.quantiles.quantiles import midpoint_taus, share_weights, tail_count


def trimmed_weights(num_quantiles: int, low: float, high: float) -> Tensor:
    """Mean without the lowest ``low`` and the highest ``high`` share of the mass, [M] float64 (our choice)."""
    return torch.tensor(share_weights(num_quantiles, low, 1.0 - high), dtype=torch.float64)


def spectral_weights(num_quantiles: int, eta: float) -> Tensor:
    """Exponential spectrum ``w_i ~ exp(-eta * tau_i)``, [M] float64; eta > 0 is averse to risk (our choice)."""
    weights = torch.exp(-eta * midpoint_taus(num_quantiles, dtype=torch.float64))
    return weights / weights.sum()


def cvar_blend_weights(num_quantiles: int, lower: float, upper: float, alpha: float, beta: float) -> Tensor:
    """``(1 - x - y) * mean + x * lower CVaR + y * upper CVaR``, [M] float64, x = lower, y = upper (our choice)."""
    if lower < 0.0 or upper < 0.0 or lower + upper > 1.0:
        raise ValueError(f"need lower, upper >= 0 and lower + upper <= 1, got {lower} and {upper}")
    weights = torch.full((num_quantiles,), (1.0 - lower - upper) / num_quantiles, dtype=torch.float64)
    num_low, num_high = tail_count(num_quantiles, alpha), tail_count(num_quantiles, beta)
    weights[:num_low] += lower / num_low
    weights[-num_high:] += upper / num_high
    return weights


def read_out(quantile_values: Tensor, weights: Tensor) -> Tensor:
    """``sum_i w_i q_i``, [... M] -> [...]."""
    return quantile_values @ weights.to(quantile_values)
