"""DFPO: DVPO whose value law is learned as a flow instead of by quantile regression."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from learner.algorithms.base import without_effect
from learner.algorithms.records import Denominators, Estimates, LossOutput
from learner.algorithms.with_critic.dvpo import DVPO
from learner.algorithms.with_critic.dvpo_config import DVPOConfig
from learner.batch import TrainBatch
from learner.maths.quantiles.quantiles import midpoint_taus, spread
from learner.models.spec import CriticConfig, CriticOutput

VELOCITY, VELOCITY_OTHER = "flow_velocity", "flow_velocity_other"
"""Outputs of the flow head in training, see ``learner/models/flow.py``."""
_SEED_STEP, _STREAM = 0x9E3779B97F4A7C15, 0x51ED270B


class FlowCriticConfig(CriticConfig):
    """A critic with a flow as its head, unless said otherwise."""

    head: Literal["flow"] = Field("flow", description="'flow': the head that this method trains.")


class DFPOConfig(DVPOConfig):
    """Options of DFPO; losses are in units of the running scale s."""

    critic: FlowCriticConfig = Field(FlowCriticConfig(), description="Shape of the critic's head.")
    geo_coef: float = Field(0.1, ge=0.0, description="Weight of the straight-path term; 0 is off.")
    anchor_coef: float = Field(0.1, ge=0.0, description="Weight of the bootstrapped anchor; 0 is off.")
    risk_coef: float = Field(0.0, ge=0.0, description="Must be 0: there is no quantile regression to weigh.")
    gain_coef: float = Field(0.0, ge=0.0, description="Weight of Eq 6, upper-tail gain; 0 is off.")
    shift_coef: float = Field(0.0, ge=0.0, description="Weight of Eq 7, mean shift; 0 is off.")
    curvature_coef: float = Field(0.0, ge=0.0, description="Weight of Eq 9, tail curvature; 0 is off.")
    consistency_coef: float = Field(0.0, ge=0.0, description="Weight of Eq 10, agreement of the heads; 0 is off.")

    @model_validator(mode="after")
    def _no_regression(self) -> DFPOConfig:
        names = ("risk_coef", "risk_eta", "risk_direction", "huber_kappa", "value_clip")
        without_effect(self, names, "in dfpo, which has no quantile regression")
        return self


class DFPO(DVPO):
    """Distributional value flow PO (2602.05890), our form of its named parts, on DVPO's targets and advantages.

    With z0 the normal quantiles, y the target atoms, ``z_u = (1 - u) * z0 + u * y`` and v the head's velocity:
    ``w * |v(z_u, u, h) - (y - z0)|^2`` (uncertainty-weighted flow matching, w = 1 / (1 + variance over heads), which is
    detached) ``+ l_geo * |v(z_u, u, h) - v(z_u', u', h)|^2`` (straight paths) ``+ l_anchor * |q - y|^2`` with q the
    quantiles of one Euler step (anchor), plus DVPO's tail terms, of which CVaR (Eq 5) and shape (Eq 8) are on. Norms
    are means over quantiles; u, u' are uniform, drawn anew in each optimiser step from the trajectory's own seed, so
    they do not depend on how the batch is split. Names of the parts are from the paper, forms and weights our choice.

    A squared error between *coupled* quantiles learns the mean of the targets' quantile functions, not the mixture of
    their laws: where a state's targets are points (its last token, or lambda = 1) the flow alone contracts to their
    mean (our derivation, cf. F4). The CVaR term works against it. Quantile regression does not have this bias.
    """

    Config = DFPOConfig
    regresses_quantiles = False

    def critic_inputs(self, batch: TrainBatch, estimates: Estimates | None, step: int) -> dict[str, Any]:
        """Targets and times for the flow's velocities; a placeholder has no state, but the same outputs."""
        targets = None if estimates is None else estimates.value_targets
        if targets is None:
            targets = batch.rewards.unsqueeze(-1)
        inputs = super().critic_inputs(batch, estimates, step)
        return {**inputs, "flow_targets": targets, "flow_times": flow_times(batch, step)}

    def critic_loss(
        self, output: CriticOutput, batch: TrainBatch, estimates: Estimates, counts: Denominators
    ) -> LossOutput:
        """DVPO's course, with the head's velocities beside what the estimation carried along."""
        velocities = {name: output.extra[name] for name in (VELOCITY, VELOCITY_OTHER)}
        return super().critic_loss(output, batch, replace(estimates, extra=estimates.extra | velocities), counts)

    def fit_terms(
        self, q: Tensor, y: Tensor, old: Tensor | None, extra: dict[str, Tensor]
    ) -> dict[str, tuple[float, Tensor]]:
        """The three flow terms, [n head] each, in the place of Eq 3 and 4."""
        c, s = self.config, self.scale.value
        z0 = torch.special.ndtri(midpoint_taus(q.shape[-1], q.device, torch.float64)).to(q.dtype) / s
        velocity, other = extra[VELOCITY] / s, extra[VELOCITY_OTHER] / s
        trust = 1.0 / (1.0 + spread(q.detach(), dim=-2).mean(dim=-1, keepdim=True))
        terms = {"flow_matching": (1.0, trust * (velocity - (y - z0)).square().mean(dim=-1))}
        if c.geo_coef:
            terms["flow_straightness"] = (c.geo_coef, (velocity - other).square().mean(dim=-1))
        if c.anchor_coef:
            terms["flow_anchor"] = (c.anchor_coef, (q - y).square().mean(dim=-1))
        return terms


def flow_times(batch: TrainBatch, step: int) -> Tensor:
    """u and u' of each token, [batch seq 2] uniform in [0, 1), from the row's seed and the optimiser step only."""
    mask = batch.action_mask
    rows = []
    for seed in batch.sample_seeds.tolist():
        generator = torch.Generator().manual_seed((seed ^ _STREAM) + (step + 1) * _SEED_STEP & (1 << 63) - 1)
        rows.append(torch.rand(mask.shape[1], 2, generator=generator))
    return torch.stack(rows).to(mask.device) if rows else torch.zeros((*mask.shape, 2), device=mask.device)
