"""VRPO: a critic with an information bottleneck and a tie to the meaning of uncertain tokens; alone or under DVPO."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from learner.algorithms.actor_critic import ActorCritic
from learner.algorithms.records import Denominators, Estimates, LossOutput, OldOutputs
from learner.algorithms.with_critic.dvpo import DVPO
from learner.algorithms.with_critic.dvpo_config import DVPOConfig
from learner.algorithms.with_critic.ppo import PPO
from learner.batch import TrainBatch
from learner.masking import token_mean
from learner.maths.collective import Collective
from learner.maths.quantiles.quantiles import quantile_at
from learner.metrics import Mean, Metrics
from learner.models.spec import CriticConfig, CriticOutput, VariationalCriticConfig
from rollout.component import StrictModel, UserError

SEMANTIC_WEIGHTS = "semantic_weights"
"""Key of ``Estimates.extra``: [batch seq], 1 / (share of tokens selected) on the selected tokens, 0 elsewhere."""
_SEED_STEP = 0x9E3779B97F4A7C15


class VRPOOptions(StrictModel):
    """What VRPO adds to an actor-critic method. Sizes and weights are our choice; none is public."""

    ib: bool = Field(True, description="Put a variational information bottleneck between hidden state and value.")
    ib_dim: int = Field(128, ge=1, description="Size of the latent z.")
    ib_coef: float = Field(1e-3, ge=0.0, description="beta_ib, weight of the latent's KL to a standard normal.")
    ib_anneal_frac: float = Field(
        0.1, ge=0.0, le=1.0, description="Share of the updates in which that weight rises linearly from 0."
    )
    sem_mode: Literal["ppl_ent", "kl_ref", "none"] = Field(
        "ppl_ent",
        description="On selected tokens: surprise and entropy of the frozen LM head; KL from the starting model; none.",
    )
    sem_share: float = Field(0.2, gt=0.0, le=1.0, description="k: tokens in the top share of entropy or of surprise.")
    ppl_coef: float = Field(0.05, ge=0.0, description="l_ppl, weight of the surprise; with kl_ref, of the KL.")
    ent_coef: float = Field(0.01, description="l_ent, weight of the entropy; positive lowers it. Not with kl_ref.")
    max_nll: float = Field(10.0, gt=0.0, description="Cap of a token's surprise, in nats, with no gradient beyond.")


class FilteredCritic(ActorCritic):
    """The critic's side of VRPO (2508.03058), over whatever value loss the method beside it has.

    ``L_critic = L_value + beta_ib * L_ib + L_sem``. ``L_ib`` is the token mean of KL(N(mu, sigma) || N(0, I)) of the
    latent, sampled in training and at its mean before the update (:mod:`learner.models.bottleneck`).
    ``L_sem = l_ppl * mean_S nll + l_ent * mean_S ent`` of ``softmax(W h_t)`` with the frozen starting LM head W, or
    ``l_ppl * mean_S KL(p_ref || p_t)`` with ``kl_ref``; gradients go through h_t into the critic's body. The structure
    is from the paper; forms, signs, sizes and weights are our choice. Detached: W, the starting model, the set S.

    S is chosen over the global batch from the critic as it was before the update, once per update (our reading of
    "recomputed each step"); with several mini-batches a mean over S divides by the mini-batch's tokens times the share
    of the whole batch that S is. The regularisers are not multiplied with sample weights. Without bottleneck and with
    ``sem_mode`` none nothing is left of them.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        if config.ib and config.critic.head == "flow":
            raise UserError("algorithm.critic.head: a flow head does not go on a bottleneck; set algorithm.ib to false")

    @property
    def critic_config(self) -> CriticConfig:
        """The heads, and what the model has to have beside them."""
        config = self.config
        if not config.ib and config.sem_mode == "none":
            heads: CriticConfig = config.critic
            return heads
        dim = config.ib_dim if config.ib else None
        return VariationalCriticConfig(**config.critic.model_dump(), bottleneck_dim=dim, sem_mode=config.sem_mode)

    @property
    def ib_coef(self) -> float:
        """beta_ib at this point of the run."""
        rise = self.config.ib_anneal_frac
        return float(self.config.ib_coef * (min(1.0, self.progress / rise) if rise > 0.0 else 1.0))

    def estimate(self, batch: TrainBatch, old: OldOutputs, world: Collective) -> Estimates:
        """The estimates of the method beside it, and the selected tokens."""
        estimates = super().estimate(batch, old, world)
        if self.config.sem_mode == "none" or old.critic is None:
            return estimates
        uncertainty = old.critic.extra["semantic_entropy"], old.critic.extra["semantic_nll"]
        selected = select_tokens(uncertainty, batch.action_mask, self.config.sem_share, world)
        population = world.gather(selected[batch.action_mask].double())
        share = float(population.mean()) if population.numel() else 1.0
        weights = selected.to(estimates.advantages) / max(share, 1e-12)
        metrics: Metrics = {"critic/semantic_frac": Mean(float(selected.sum()), float(batch.action_mask.sum()))}
        extra = estimates.extra | {SEMANTIC_WEIGHTS: weights}
        return replace(estimates, extra=extra, metrics=estimates.metrics | metrics)

    def critic_inputs(self, batch: TrainBatch, estimates: Estimates | None, step: int) -> dict[str, Any]:
        """Seeds of the latent's noise, fresh in each step and the same wherever a row lands; the selected tokens."""
        inputs = super().critic_inputs(batch, estimates, step)
        if self.config.ib:
            mixed = [(seed + (step + 1) * _SEED_STEP) % (1 << 63) for seed in batch.sample_seeds.tolist()]
            inputs["noise_seeds"] = torch.tensor(mixed, dtype=torch.int64)
        if self.config.sem_mode != "none":
            chosen = batch.action_mask if estimates is None else estimates.extra[SEMANTIC_WEIGHTS] > 0
            inputs["semantic_mask"] = chosen
        return inputs

    def critic_loss(
        self, output: CriticOutput, batch: TrainBatch, estimates: Estimates, counts: Denominators
    ) -> LossOutput:
        """The value loss of the method beside it, plus the two regularisers."""
        result = super().critic_loss(output, batch, estimates, counts)
        loss, metrics, mask = result.loss, dict(result.metrics), batch.action_mask
        for name, (coef, weights, values) in self._regularisers(output, estimates).items():
            loss = loss + coef * token_mean(
                values if weights is None else weights * values, mask, counts.num_action_tokens
            )
            kept = values.detach()[mask if weights is None else weights > 0].double()
            metrics[f"critic/{name}"] = Mean(float(kept.sum()), float(kept.numel()))
            metrics[f"critic/{name}_weighted"] = Mean(coef * float(kept.sum()), float(kept.numel()))
        return LossOutput(loss, metrics)

    def _regularisers(
        self, output: CriticOutput, estimates: Estimates
    ) -> dict[str, tuple[float, Tensor | None, Tensor]]:
        """Coefficient, weights (None: all tokens alike) and values [batch seq] of each term that is on."""
        config, extra = self.config, output.extra
        terms: dict[str, tuple[float, Tensor | None, Tensor]] = {}
        if config.ib:
            terms["bottleneck_kl"] = (self.ib_coef, None, extra["bottleneck_kl"])
        if config.sem_mode == "ppl_ent":
            weights = estimates.extra[SEMANTIC_WEIGHTS]
            terms["semantic_nll"] = (config.ppl_coef, weights, extra["semantic_nll"].clamp(max=config.max_nll))
            terms["semantic_entropy"] = (config.ent_coef, weights, extra["semantic_entropy"])
        elif config.sem_mode == "kl_ref":
            terms["semantic_kl"] = (config.ppl_coef, estimates.extra[SEMANTIC_WEIGHTS], extra["semantic_kl"])
        return terms


def select_tokens(columns: tuple[Tensor, ...], mask: Tensor, share: float, world: Collective) -> Tensor:
    """S: tokens that reach the ``1 - share`` quantile of any column over all ranks' action tokens, [batch seq] bool.

    Method 4 (2508.03058; that uncertain tokens are chosen is from the paper, the rule is our choice). The quantile is
    linear between midpoint levels; detached. Columns are [batch seq] and may hold anything outside the mask.
    """
    chosen = torch.zeros_like(mask)
    for column in columns:
        population = world.gather(column.detach()[mask])
        if population.numel():
            chosen |= mask & (column.detach() >= quantile_at(population.sort().values, 1.0 - share))
    return chosen


class VRPO(FilteredCritic, PPO):
    """VRPO (2508.03058): PPO whose scalar critic filters noise. See :class:`FilteredCritic`."""

    class Config(VRPOOptions, PPO.Config):
        """Options of VRPO."""


class VRPODVPO(FilteredCritic, DVPO):
    """VRPO and DVPO together (our combination): quantile heads on the latent, ``Eq 11 + beta_ib * L_ib + L_sem``."""

    class Config(VRPOOptions, DVPOConfig):
        """Options of the combination."""
