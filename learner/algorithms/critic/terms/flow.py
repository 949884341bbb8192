"""Flow matching: the critic's distribution is learned by matching velocities instead of regressing quantiles."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from learner.algorithms.critic.terms.base import CriticTerm, TokenView, Weighted
from learner.algorithms.records import Estimates
from learner.algorithms.streams import row_generators
from learner.batch import TrainBatch
from learner.maths.quantiles.quantiles import midpoint_taus, spread
from learner.models.spec import CriticConfig


class FlowMatching(CriticTerm):
    """The three named parts of 2602.05890 in our forms, for a critic with a flow head.

    With z0 the normal quantiles, y the target atoms, ``z_u = (1 - u) * z0 + u * y`` and v the head's velocity:
    ``w * |v(z_u, u, h) - (y - z0)|^2`` (uncertainty-weighted flow matching, w = 1 / (1 + variance over heads), which is
    detached) ``+ l_geo * |v(z_u, u, h) - v(z_u', u', h)|^2`` (straight paths) ``+ l_anchor * |q - y|^2`` with q the
    quantiles of one Euler step (anchor). Norms are means over quantiles; u, u' are uniform, drawn anew in each
    optimiser step from the trajectory's own seed, so they do not depend on how the batch is split.

    A squared error between *coupled* quantiles learns the mean of the targets' quantile functions, not the mixture of
    their distributions: where a state's targets are points (its last token, or lambda = 1) the flow alone contracts to
    their mean (our derivation). Quantile regression does not have this bias.
    """

    class Config(Weighted):
        """Options of flow matching."""

        coef: float = Field(1.0, gt=0.0, description="Weight of the matching part in the critic's loss.")
        straightness: float = Field(0.1, ge=0.0, description="l_geo, weight of the straight-path part; 0 is off.")
        anchor: float = Field(0.1, ge=0.0, description="l_anchor, weight of the bootstrapped anchor; 0 is off.")

    def misfit(self, critic: CriticConfig) -> str:
        """See :class:`CriticTerm`."""
        return "" if critic.head == "flow" else f"needs critic.head 'flow', got {critic.head!r}"

    def model_inputs(self, batch: TrainBatch, estimates: Estimates | None, step: int) -> dict[str, Any]:
        """Targets and times for the flow's velocities; a placeholder has no state, but the same outputs."""
        targets = None if estimates is None else estimates.value_targets
        if targets is None:
            targets = batch.rewards.unsqueeze(-1)
        return {"flow_targets": targets, "flow_times": flow_times(batch, step)}

    def parts(self, view: TokenView) -> dict[str, tuple[float, Tensor]]:
        """See :class:`CriticTerm`; [n head] each."""
        velocity, other = self._velocities(view)
        q, y, s = view.q, view.y, view.scale
        z0 = torch.special.ndtri(midpoint_taus(q.shape[-1], q.device, torch.float64)).to(q.dtype) / s
        trust = 1.0 / (1.0 + spread(q.detach(), dim=-2).mean(dim=-1, keepdim=True))
        found = {
            "flow_matching": (self.config.coef, trust * (velocity - (y - z0)).square().mean(dim=-1)),
            "flow_straightness": (self.config.straightness, (velocity - other).square().mean(dim=-1)),
            "flow_anchor": (self.config.anchor, (q - y).square().mean(dim=-1)),
        }
        return {name: part for name, part in found.items() if part[0]}

    def _velocities(self, view: TokenView) -> tuple[Tensor, Tensor]:
        """Both velocities of each sampled token, [n head M], in units of s."""
        output, mask = view.output, view.action_mask
        if output is None or mask is None or output.flow_velocity is None or output.flow_velocity_other is None:
            raise ValueError("flow matching needs the velocities of a flow head")
        return output.flow_velocity[mask] / view.scale, output.flow_velocity_other[mask] / view.scale


def flow_times(batch: TrainBatch, step: int) -> Tensor:
    """u and u' of each token, [batch seq 2] uniform in [0, 1), from the row's seed and the optimiser step only."""
    mask = batch.action_mask
    generators = row_generators(batch.sample_seeds, "flow_times", step)
    rows = [torch.rand(mask.shape[1], 2, generator=generator) for generator in generators]
    return torch.stack(rows).to(mask.device) if rows else torch.zeros((*mask.shape, 2), device=mask.device)
