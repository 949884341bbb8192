"""Decoupled VPO: a value model that is trained first, then frozen, and whose values are the advantages."""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field, model_validator
from torch import Tensor

from learner.algorithms.actor_critic import ActorCritic, ActorCriticConfig, Evaluation
from learner.algorithms.base import without_effect
from learner.algorithms.clipped_policy import CRITIC_WEIGHTS
from learner.algorithms.records import Denominators, Estimates, LossOutput
from learner.algorithms.with_critic.ppo import ScalarCriticConfig
from learner.batch import TrainBatch
from learner.maths.collective import Collective
from learner.maths.losses.value import value_loss
from learner.maths.quantiles.quantiles import quantile_mean
from learner.maths.returns import lambda_returns
from learner.metrics import Mean, Metrics
from learner.models.spec import END_VALUES, CriticOutput

END_TARGETS = "end_targets"
"""Key of ``Estimates.extra``: [batch] corrected score of each trajectory."""


class DecoupledVPO(ActorCritic):
    """Decoupled value policy optimisation (2502.16944): pre-train a global value model, freeze it, use it as advantage.

    For the first ``pretrain_frac`` of the updates only the critic learns: ``(sg Y_t - V_t)^2 / 2`` on lambda-returns of
    the score (intermediate rewards 0; ``lam_critic`` 0 is the paper's TD(0)), and ``(r - V_end)^2 / 2`` for the value
    after the last token. From then on it is frozen and ``A_t = Q(s_t, a_t)``, whitened, in PPO-clip. As text is
    deterministic, Q(s_t, a_t) is the critic's value *after* token t: V at the next sampled token, or V_end. So no
    observed reward reaches the policy except through the frozen critic.

    What differs from the paper: the value model learns online, from the policy's own first samples, not offline from a
    data set (the policy does not change meanwhile); and it is not conditioned on other sample trajectories of the
    policy but on the text so far only, since a critic here reads one row. Targets and advantages are detached.
    """

    class Config(ActorCriticConfig):
        """Options of decoupled VPO."""

        critic: ScalarCriticConfig = Field(ScalarCriticConfig(), description="Shape of the critic's head.")
        pretrain_frac: float = Field(
            0.2, gt=0.0, lt=1.0, description="Share of the updates in which only the critic learns; then it is frozen."
        )

        @model_validator(mode="after")
        def _no_gae(self) -> DecoupledVPO.Config:
            names = ("lam_actor", "lam_actor_alpha", "bootstrap_truncated")
            without_effect(self, names, "in decoupled_vpo, whose advantages are values")
            return self

    @property
    def needs_end_values(self) -> bool:
        """Always: the value after the last token is Q of the last action."""
        return True

    def critic_only_updates(self, num_updates: int) -> int:
        """At least one update, and at least one is left for the policy where there are two."""
        return min(num_updates - 1, math.ceil(self.config.pretrain_frac * num_updates))

    def critic_frozen_from(self, num_updates: int) -> int | None:
        """As soon as the policy learns."""
        return self.critic_only_updates(num_updates)

    def critic_inputs(self, batch: TrainBatch, estimates: Estimates | None, step: int) -> dict[str, Any]:
        """Ask for the value after each row's last token, in training too."""
        return {**super().critic_inputs(batch, estimates, step), "end_positions": batch.lengths - 1}

    def evaluate(self, rewards: Tensor, critic: CriticOutput, batch: TrainBatch, world: Collective) -> Evaluation:
        """Advantages are the values after each token; targets are lambda-returns as in every actor-critic method."""
        quantiles = self.ensemble(critic.quantile_values)
        values, end = quantile_mean(quantiles), quantile_mean(self.ensemble(critic.extra[END_VALUES]))
        advantages = lambda_returns(rewards.new_zeros(rewards.shape), values, batch.action_mask, 1.0, 0.0, end)
        return Evaluation(quantiles, values, advantages, self.value_targets(rewards, quantiles, batch, None), {})

    def prepare(
        self, returns: Tensor, quantile_values: Tensor, targets: Tensor, batch: TrainBatch, world: Collective
    ) -> tuple[dict[str, Tensor], Metrics]:
        """Carry the corrected scores along."""
        return {END_TARGETS: batch.scores}, {}

    def critic_loss(
        self, output: CriticOutput, batch: TrainBatch, estimates: Estimates, counts: Denominators
    ) -> LossOutput:
        """The loss of every token's value, and of the value after each trajectory as one token more."""
        result = super().critic_loss(output, batch, estimates, counts)
        target = estimates.extra[END_TARGETS][:, None]
        losses = value_loss(output.extra[END_VALUES].squeeze(-1), target).mean(dim=-1)
        if CRITIC_WEIGHTS in estimates.extra:
            losses = losses * estimates.extra[CRITIC_WEIGHTS]
        end = Mean(float(losses.detach().double().sum()), float(losses.numel()))
        return LossOutput(
            result.loss + losses.sum() / max(1.0, counts.num_action_tokens), {**result.metrics, "critic/end_value": end}
        )
