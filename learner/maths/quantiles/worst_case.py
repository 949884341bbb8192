"""The least expectation of a value over laws near the predicted one: what robust Bellman targets bootstrap from.

Every function takes the M equally likely atoms of a law, ascending in the last axis, and gives one value per leading
index, at most their mean. Detached: targets carry no gradient. All forms are our choice: of the robust PPO
in 2512.03847 only "worst case" is public.
"""

from __future__ import annotations

import torch
from torch import Tensor

from learner.maths.quantiles.quantiles import quantile_mean, share_weights

_BISECTIONS = 60


def worst_cvar(quantile_values: Tensor, alpha: float) -> Tensor:
    """Mean of the lowest share ``alpha`` of the mass, [... M] -> [...]: the infimum over densities up to 1 / alpha.

    An atom cut by the boundary counts in part, so any alpha in (0, 1] is exact; alpha = 1 is the mean, bit for bit.
    """
    if alpha == 1.0:
        return quantile_mean(quantile_values.detach())
    weights = torch.tensor(share_weights(quantile_values.shape[-1], 0.0, alpha), dtype=torch.float64)
    return quantile_values.detach() @ weights.to(quantile_values)


def worst_tv(quantile_values: Tensor, rho: float) -> Tensor:
    """``(1 - rho) * (mean of the lowest share 1 - rho) + rho * (lowest atom)``, [... M] -> [...].

    The infimum over all laws on the same atoms within total variation ``rho`` in [0, 1): the highest mass rho moves to
    the lowest atom (our derivation). rho = 0 is the mean, bit for bit. It is the inner problem of RFQI (2208.05129 Eq
    8, ``inf_eta E[(eta - V)_+] - (1 - rho) * eta``) where the lowest atom takes the place of a fail state of value 0.
    """
    if rho == 0.0:
        return quantile_mean(quantile_values.detach())
    return (1.0 - rho) * worst_cvar(quantile_values, 1.0 - rho) + rho * quantile_values.detach()[..., 0]


def worst_kl(quantile_values: Tensor, rho: float) -> Tensor:
    """``max_{b > 0} ( -b * log mean exp(-Z / b) - b * rho )``, [... M] -> [...].

    The infimum over laws of KL divergence at most ``rho`` from the predicted one, by its dual (our derivation). The
    dual is concave; its slope is KL(tilted || predicted) - rho with the tilted law ~ exp(-Z / b), which falls in b, so
    the maximum is found by bisection on log b in float64. For rho beyond the log of M over the multiplicity of the
    lowest atom it is that atom. rho = 0 is the mean, bit for bit.
    """
    values = quantile_values.detach()
    if rho == 0.0:
        return quantile_mean(values)
    low, spread = values[..., :1].double(), (values[..., -1:] - values[..., :1]).double()
    units = (values.double() - low) / torch.where(spread > 0, spread, 1.0)  # in [0, 1], lowest atom 0
    below, above = units.new_full(low.shape, -18.0), units.new_full(low.shape, 18.0)  # of log(1 / b)
    for _ in range(_BISECTIONS):
        tilt = (below + above) / 2
        enough = _tilted_kl(units, tilt.exp()) >= rho
        below, above = torch.where(enough, below, tilt), torch.where(enough, tilt, above)
    inverse = ((below + above) / 2).exp()
    dual = -((-units * inverse).expm1().mean(dim=-1, keepdim=True).log1p() + rho) / inverse
    worst = low + spread * dual.clamp(min=0.0)
    return torch.minimum(worst.squeeze(-1), values.double().mean(dim=-1)).to(values.dtype)


def _tilted_kl(units: Tensor, inverse: Tensor) -> Tensor:
    """KL divergence [... 1] from the uniform law on the atoms of the law ~ exp(-inverse * units)."""
    scaled = -units * inverse
    normaliser = scaled.exp().mean(dim=-1, keepdim=True)
    mean = (scaled.exp() * scaled).mean(dim=-1, keepdim=True) / normaliser
    return mean - normaliser.log()


def contaminated(values: Tensor, lowest: Tensor, rho: float) -> Tensor:
    """``(1 - rho) * V + rho * min_batch V``, elementwise: a share rho of the future is as bad as the worst state."""
    return (1.0 - rho) * values.detach() + rho * lowest.detach()
