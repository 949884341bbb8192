"""Linear quantile heads on a hidden state. One head with one quantile is a scalar value."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from learner.maths.quantiles.ordering import ascending
from learner.maths.quantiles.quantiles import crossing_fraction, midpoint_taus
from learner.models.spec import CriticConfig

INITIAL_WEIGHT_STD = 1e-3
INITIAL_SPREAD = 0.1
"""Half width of the initial value distribution in units of the return scale (our choice)."""


class QuantileHeads(nn.Module):
    """N independent linear maps from a hidden state to M quantiles, in float32 whatever the body computes in.

    Initialisation (our choice): weights normal with standard deviation 1e-3, a different seed for each head, the same
    for all quantiles of a head; the bias starts the quantiles at v0 + 2 * s0 * (tau_i - 1/2) with v0 = ``prior_mean``
    and s0 = 0.1 * ``prior_scale``. So they begin sorted and narrow in every state. (Weights drawn for each quantile
    would not: their noise is larger than the distance of neighbours, half of which would start crossed.)

    Monotonicity (our choice):

    * ``sort`` sorts the raw outputs; gradients follow the permutation.
    * ``cumsum`` takes one raw output as the middle quantile and moves outward by softplus(raw) / M. It never crosses.
      The middle one carries the gradient of all M quantiles; that is divided by M, which is a learning rate of 1 / M
      under plain gradient descent and keeps it from dominating the clipped norm under AdamW.
    * ``none`` leaves the raw outputs.
    """

    def __init__(self, hidden_size: int, config: CriticConfig, seed: int) -> None:
        super().__init__()
        self.config, self.hidden_size = config, hidden_size
        directions = [
            torch.randn(hidden_size, generator=torch.Generator().manual_seed(seed + head))
            for head in range(config.num_heads)
        ]
        weight = torch.stack(directions)[:, None, :].repeat(1, config.num_quantiles, 1)
        self.weight = nn.Parameter(weight * INITIAL_WEIGHT_STD)
        self.bias = nn.Parameter(self._initial_bias().repeat(config.num_heads, 1))

    def _initial_bias(self) -> Tensor:
        """[M] raw outputs that give the initial quantiles."""
        width = 2.0 * INITIAL_SPREAD * self.config.prior_scale
        quantiles = self.config.prior_mean + width * (midpoint_taus(self.config.num_quantiles) - 0.5)
        if self.config.monotonicity != "cumsum":
            return quantiles
        raw = torch.full_like(quantiles, math.log(math.expm1(width)))  # softplus(raw) / M is the step width / M
        raw[self._middle] = quantiles[self._middle]
        return raw

    @property
    def _middle(self) -> int:
        return self.config.num_quantiles // 2

    def forward(self, hidden: Tensor) -> dict[str, Tensor]:
        """Quantiles of each state.

        Args:
            hidden: [n dim].

        Returns:
            ``quantile_values`` [n head quantile] float32, and ``raw_crossing_frac`` [n], the share of neighbouring raw
            outputs out of order, averaged over heads (0 for ``cumsum``, which cannot cross).
        """
        weight, bias = self.weight.float().flatten(0, 1), self.bias.float().flatten()
        raw = torch.addmm(bias, hidden.float(), weight.t()).unflatten(-1, self.bias.shape)
        if self.config.monotonicity == "cumsum":
            return {"quantile_values": self._outward(raw), "raw_crossing_frac": raw.new_zeros(raw.shape[0])}
        crossing = crossing_fraction(raw).mean(dim=-1)
        values = ascending(raw) if self.config.monotonicity == "sort" else raw
        return {"quantile_values": values, "raw_crossing_frac": crossing}

    def _outward(self, raw: Tensor) -> Tensor:
        """Sorted by construction: the middle one, and positive steps to both sides."""
        num, middle = raw.shape[-1], self._middle
        base = raw[..., middle : middle + 1]
        base = base.detach() + (base - base.detach()) / num
        steps = nn.functional.softplus(raw) / num
        above = base + steps[..., middle + 1 :].cumsum(dim=-1)
        below = base - steps[..., :middle].flip(-1).cumsum(dim=-1).flip(-1)
        return torch.cat([below, base, above], dim=-1)
