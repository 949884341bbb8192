"""Robust Bellman PPO: targets bootstrap from the worst case over a set of value laws."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from learner.algorithms.actor_critic import ActorCritic, ActorCriticConfig, Evaluation
from learner.algorithms.terms.running_scale import RunningScale
from learner.batch import TrainBatch
from learner.masking import masked
from learner.maths.collective import Collective
from learner.maths.logprobs import scatter_to_tokens
from learner.maths.quantiles.quantiles import midpoint_taus, quantile_huber_per_level, quantile_mean
from learner.maths.quantiles.worst_case import contaminated, worst_cvar, worst_kl, worst_tv
from learner.maths.returns import lambda_returns
from learner.metrics import Last, Max, Mean, Metrics
from learner.models.spec import END_VALUES, CriticConfig, CriticOutput


class RobustCriticConfig(CriticConfig):
    """Three scalar heads unless said otherwise."""

    num_quantiles: int = Field(1, ge=1, le=4096, description="Quantile levels of each head; 1 is a scalar critic.")


class RobustBellmanConfig(ActorCriticConfig):
    """Options of robust Bellman PPO."""

    dual_clip: float | None = Field(3.0, gt=1.0, description="Largest ratio paid for a negative advantage; or null.")
    value_clip: float | None = Field(
        0.2, gt=0.0, description="Bound of a scalar critic's step from its old value, in reward units; or null."
    )
    critic: RobustCriticConfig = Field(RobustCriticConfig(), description="Shape of the critic's head.")
    uncertainty: Literal["min_heads", "contamination", "cvar", "tv", "kl"] = Field(
        "min_heads", description="The set of value laws whose worst case is bootstrapped from."
    )
    rho: float = Field(0.1, ge=0.0, description="contamination, tv: share of the mass; kl: divergence. 0 is PPO.")
    alpha: float = Field(0.3, gt=0.0, le=1.0, description="cvar: share of the mass, from below; 1 is PPO.")
    huber_kappa: float = Field(
        0.05, ge=0.0, description="Quantile critics: Huber threshold in units of the running scale; 0 is pinball."
    )
    scale_decay: float = Field(0.99, ge=0.0, lt=1.0, description="Decay of the running scale, per update.")
    scale_floor: float = Field(1e-3, gt=0.0, description="Least running scale, in reward units.")

    @model_validator(mode="after")
    def _set_fits_the_critic(self) -> RobustBellmanConfig:
        kind, quantiles = self.uncertainty, self.critic.num_quantiles
        if kind in ("contamination", "tv") and self.rho >= 1.0:
            raise ValueError(
                f"rho is a share of the mass with uncertainty {kind!r} and must be below 1, got {self.rho}"
            )
        neutral = self.alpha == 1.0 if kind == "cvar" else self.rho == 0.0
        if kind in ("cvar", "tv", "kl") and quantiles == 1 and not neutral:
            raise ValueError(
                f"uncertainty {kind!r} looks at the law of the value, so critic.num_quantiles must be above 1 "
                "(min_heads and contamination work with a scalar critic)"
            )
        return self


class RobustBellman(ActorCritic):
    """Worst-case PPO, the "Robust Bellman" baseline of 2512.03847, of which only minimum aggregation is public.

    Our form: ``Y_t = r_t + gamma * ((1 - lam) * Vrob_{t+1} + lam * Y_{t+1})`` and ``A_t = Y_t - V_t`` with V
    the mean of the ensemble, at ``lam_actor`` for A and ``lam_critic`` for the targets; every head regresses to Y_t.
    Vrob is the least head (``min_heads``) or the least expectation over a set around the predicted law
    (:mod:`learner.maths.quantiles.worst_case`). Everything but the critic's output in its loss is detached. Scalar
    heads have PPO's squared error, quantile heads the quantile Huber loss towards the point Y_t. With one head
    (``min_heads``), rho = 0 or alpha = 1 it is PPO.

    Pessimism adds up along the response: a gap e lowers the targets by about ``(1 - lam) * T * e``. It is reported.
    """

    Config = RobustBellmanConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.scale = RunningScale(config.critic.prior_scale, config.scale_decay, config.scale_floor)

    @property
    def needs_old_values(self) -> bool:
        """Only the squared error of scalar heads clips the step."""
        return self.config.value_clip is not None and self.config.critic.num_quantiles == 1

    def worst_values(self, quantile_values: Tensor, lowest: Tensor) -> Tensor:
        """Vrob of each state, [... head M] -> [...], detached.

        Args:
            lowest: scalar, the least V of the batch.
        """
        config, law = self.config, self.ensemble(quantile_values)
        if config.uncertainty == "min_heads":
            heads = [self.ensemble(head) for head in quantile_values.split(1, dim=-2)]
            return torch.stack([quantile_mean(head) for head in heads]).amin(dim=0)
        if config.uncertainty == "contamination":
            return contaminated(quantile_mean(law), lowest, config.rho)
        if config.uncertainty == "cvar":
            return worst_cvar(law, config.alpha)
        return worst_tv(law, config.rho) if config.uncertainty == "tv" else worst_kl(law, config.rho)

    def evaluate(self, rewards: Tensor, critic: CriticOutput, batch: TrainBatch, world: Collective) -> Evaluation:
        """Robust targets and advantages, and by how much pessimism lowered the targets."""
        mask, gamma, lam = batch.action_mask, self.config.gamma, self.config.lam_critic
        quantiles = self.ensemble(critic.quantile_values)
        values = quantile_mean(quantiles)
        population = world.gather(values[mask])
        lowest = population.min() if population.numel() else values.new_zeros(())
        worst = scatter_to_tokens(self.worst_values(critic.quantile_values[mask], lowest), mask)
        last = plain_last = None
        bootstrap = self.bootstrap(critic, batch)
        if bootstrap is not None:
            end = self.worst_values(critic.extra[END_VALUES], lowest)
            last, plain_last = torch.where(batch.truncated, end, 0.0), quantile_mean(bootstrap)
        raw = lambda_returns(rewards, worst, mask, gamma, self.lam_actor(batch), last) - masked(values, mask)
        targets = lambda_returns(rewards, worst, mask, gamma, lam, last)
        plain = lambda_returns(rewards, values, mask, gamma, lam, plain_last)
        metrics = pessimism_metrics((values - worst)[mask], (plain - targets)[mask])
        return Evaluation(quantiles, values, masked(raw, mask), targets.unsqueeze(-1), metrics)

    def prepare(
        self, returns: Tensor, quantile_values: Tensor, targets: Tensor, batch: TrainBatch, world: Collective
    ) -> tuple[dict[str, Tensor], Metrics]:
        """Update the running scale that a quantile critic's loss is taken in."""
        if self.config.critic.num_quantiles == 1:
            return {}, {}
        return {}, {"critic/scale": Last(self.scale.update(world.gather(returns[batch.action_mask])))}

    def token_losses(
        self, quantile_values: Tensor, targets: Tensor, old_values: Tensor | None, extra: dict[str, Tensor]
    ) -> tuple[Tensor, Metrics]:
        """PPO's value loss of scalar heads, or the quantile Huber loss of quantile heads, mean over heads, [n]."""
        if quantile_values.shape[-1] == 1:
            return super().token_losses(quantile_values, targets, old_values, extra)
        s = self.scale.value
        taus = midpoint_taus(quantile_values.shape[-1], quantile_values.device, quantile_values.dtype)
        goal = (targets / s).unsqueeze(-2)
        loss = quantile_huber_per_level(quantile_values / s, goal, taus, self.config.huber_kappa, targets_sorted=True)
        return loss.mean(dim=(-1, -2)), {}

    def state_dict(self) -> dict[str, Any]:
        """The running scale, and what the base keeps."""
        return {**super().state_dict(), "scale": self.scale.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the running scale."""
        super().load_state_dict(state)
        self.scale.load_state_dict(state["scale"])


def pessimism_metrics(gaps: Tensor, lowered: Tensor) -> Metrics:
    """How much lower the worst case is than the value, and what that has added up to in the critic's targets; [n]."""
    count = float(gaps.numel())
    return {
        "critic/pessimism": Mean(float(gaps.double().sum()), count),
        "critic/target_pessimism": Mean(float(lowered.double().sum()), count),
        "critic/target_pessimism_max": Max(float(lowered.max()) if count else 0.0),
    }
