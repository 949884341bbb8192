"""A flow as the critic's head: quantiles are what one step of a learned velocity makes of a normal law's."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from learner.maths.quantiles.quantiles import crossing_fraction, midpoint_taus
from learner.models.quantile_heads import INITIAL_SPREAD, INITIAL_WEIGHT_STD
from learner.models.spec import CriticConfig

FLOW_VELOCITY, FLOW_VELOCITY_OTHER = "flow_velocity", "flow_velocity_other"
"""Names of the outputs that training gets beside the quantiles, [n head quantile], aligned to tokens by the critic."""
DEFAULT_HIDDEN = 64


def normal_quantiles(num_quantiles: int, device: torch.device | None = None) -> Tensor:
    """``z0_i = Phi^{-1}(tau_i)``, [M] float32: where the flow starts."""
    values: Tensor = torch.special.ndtri(midpoint_taus(num_quantiles, device, torch.float64))
    return values.float()


class FlowHeads(nn.Module):
    """N velocity networks v(z, u, h); ``quantiles = sort(z0 + v(z0, 0, h))``, one Euler step (2602.05890, our form).

    z is the vector of all M quantiles and u in [0, 1] the flow's own time. ``v = b + W silu(A h + B z + c u + d)`` with
    one hidden layer, so that a head costs little more than a linear one (our choice; the paper's network is not
    public). The output contract is that of :class:`~learner.models.quantile_heads.QuantileHeads`, and it starts from
    the same narrow, sorted quantiles, with another seed for each head. Float32 throughout. Everything, the velocities
    that training asks for included, is computed in one call of this one module: under ZeRO-3 its weights are whole only
    then, and every rank gathers them as often.
    """

    def __init__(self, hidden_size: int, config: CriticConfig, seed: int) -> None:
        super().__init__()
        self.config, self.hidden_size, self.num_hidden = config, hidden_size, config.flow_hidden or DEFAULT_HIDDEN
        heads, num, units = config.num_heads, config.num_quantiles, self.num_hidden

        def drawn(stream: int, *shape: int, std: float) -> nn.Parameter:
            draws = [
                torch.randn(*shape, generator=torch.Generator().manual_seed(seed + head + 1000 * stream))
                for head in range(heads)
            ]
            return nn.Parameter(torch.stack(draws) * std)

        self.from_state = drawn(0, units, hidden_size, std=1.0 / math.sqrt(hidden_size))
        self.from_value = drawn(1, units, num, std=1.0 / math.sqrt(num))
        self.from_time = drawn(2, units, std=1.0)
        self.offset = nn.Parameter(torch.zeros(heads, units))
        direction = drawn(3, 1, units, std=INITIAL_WEIGHT_STD).detach()  # the same for all quantiles: none cross
        self.weight = nn.Parameter(direction.repeat(1, num, 1))
        width = 2.0 * INITIAL_SPREAD * config.prior_scale
        start = config.prior_mean + width * (midpoint_taus(num) - 0.5)
        self.bias = nn.Parameter((start - normal_quantiles(num)).repeat(heads, 1))

    def forward(self, hidden: Tensor, targets: Tensor | None = None, times: Tensor | None = None) -> dict[str, Tensor]:
        """Quantiles of each state, and in training velocities on the way to the targets.

        Args:
            hidden: [n dim].
            targets: [m K] ascending atoms Y of the first m states, K = 1 or M, in reward units; detached here.
            times: [m 2], u and u' in [0, 1], with ``targets``.

        Returns:
            ``quantile_values`` [n head quantile], ``raw_crossing_frac`` [n]; with targets also ``flow_velocity`` and
            ``flow_velocity_other`` [m head quantile], v at ``z_u = (1 - u) * z0 + u * Y`` and at ``z_u'``.
        """
        drive = torch.einsum("nd,hud->nhu", hidden.float(), self.from_state.float()) + self.offset.float()
        z0 = normal_quantiles(self.config.num_quantiles, hidden.device)
        raw = z0 + self._velocity(drive, z0.expand(len(hidden), -1), torch.zeros(len(hidden), device=hidden.device))
        outputs = {
            "quantile_values": raw.sort(dim=-1).values,
            "raw_crossing_frac": crossing_fraction(raw).mean(dim=-1),
        }
        if targets is None or times is None:
            return outputs
        drive = drive[: len(targets)]
        for name, u in zip((FLOW_VELOCITY, FLOW_VELOCITY_OTHER), times.float().unbind(dim=-1), strict=True):
            between = (1.0 - u[:, None]) * z0 + u[:, None] * targets.detach().float()
            outputs[name] = self._velocity(drive, between, u)
        return outputs

    def _velocity(self, drive: Tensor, z: Tensor, u: Tensor) -> Tensor:
        """v(z, u, h), [n head M], with ``drive`` [n head unit] the part of h; z [n M], u [n]."""
        inner = drive + torch.einsum("nq,huq->nhu", z, self.from_value.float())
        inner = inner + u[:, None, None] * self.from_time.float()
        return torch.einsum("nhu,hqu->nhq", nn.functional.silu(inner), self.weight.float()) + self.bias.float()
