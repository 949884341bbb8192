"""Actor-critic estimation: GAE over a read-out of the critic, value targets, and a scalar critic's loss.

A method with a critic is a subclass that replaces some of :meth:`ActorCritic.read_out` (quantiles -> the scalar V of
the advantage), :meth:`ActorCritic.value_targets` (rewards and old values -> what the critic regresses to) and
:meth:`ActorCritic.token_losses` (the critic's loss of each token).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from learner.algorithms.clipped_policy import CRITIC_WEIGHTS, ClippedPolicy, ClippedPolicyConfig
from learner.algorithms.records import Denominators, Estimates, LossOutput, OldOutputs
from learner.batch import TrainBatch
from learner.masking import WhitenMode
from learner.maths.calibration import critic_metrics
from learner.maths.collective import Collective
from learner.maths.losses.value import value_loss
from learner.maths.quantiles.quantiles import quantile_mean
from learner.maths.returns import Lam, discounted_returns, gae, lambda_returns
from learner.metrics import Metrics
from learner.models.spec import END_VALUES, CriticConfig, CriticOutput


class ActorCriticConfig(ClippedPolicyConfig):
    """Options of advantage estimation with a critic."""

    gamma: float = Field(1.0, ge=0.0, le=1.0, description="Discount per sampled token.")
    lam_actor: float = Field(0.95, ge=0.0, le=1.0, description="GAE lambda of the advantages.")
    lam_actor_alpha: float | None = Field(
        None,
        gt=0.0,
        description="Length-adaptive lambda 1 - 1 / (this * sampled tokens), at least 0, for lam_actor; or null.",
    )
    lam_critic: float = Field(0.95, ge=0.0, le=1.0, description="Lambda of the critic's targets.")
    whiten: WhitenMode = Field(
        "std", description="Normalisation of advantages over all action tokens of the batch: none, std, scale or mad."
    )
    value_clip: float | None = Field(
        None, gt=0.0, description="Bound of the critic's step from its old value, in reward units; null for none."
    )
    bootstrap_truncated: bool = Field(
        False, description="Take the critic's value, not 0, as the future of a response cut at the length limit."
    )
    critic: CriticConfig = Field(CriticConfig(), description="Shape of the critic's head.")


class Evaluation(NamedTuple):
    """What rewards and the old critic say of each token.

    Attributes:
        quantiles: [batch seq M] of the ensemble.
        values: [batch seq], the scalar V.
        advantages: [batch seq], before normalisation; 0 outside ``action_mask``.
        targets: [batch seq K] ascending atoms that the critic regresses to.
        metrics: diagnostics.
    """

    quantiles: Tensor
    values: Tensor
    advantages: Tensor
    targets: Tensor
    metrics: Metrics


class ActorCritic(ClippedPolicy):
    """Base of the methods with a critic. As it stands: a scalar critic, i.e. PPO."""

    Config = ActorCriticConfig
    needs_critic = True

    @property
    def needs_end_values(self) -> bool:
        """Whether ``old.critic.extra`` must hold :data:`END_VALUES`."""
        return bool(self.config.bootstrap_truncated)

    @property
    def needs_old_values(self) -> bool:
        """Whether the critic's loss looks at the old critic's output."""
        return self.config.value_clip is not None

    # --- the pieces that methods replace -----------------------------------------------------------------------

    def ensemble(self, quantile_values: Tensor) -> Tensor:
        """Mean quantile function over heads, [... head M] -> [... M], detached."""
        values = quantile_values.detach()
        if self.config.critic.monotonicity == "none":
            values = values.sort(dim=-1).values
        return values.mean(dim=-2)

    def read_out(self, quantile_values: Tensor) -> Tensor:
        """The scalar value of a quantile function, [... M] -> [...]; linear in it."""
        return quantile_mean(quantile_values)

    def value_targets(
        self, rewards: Tensor, quantile_values: Tensor, batch: TrainBatch, bootstrap: Tensor | None
    ) -> Tensor:
        """Ascending atoms that the critic regresses to, [batch seq K]. Here the scalar lambda-return, K = 1.

        Args:
            rewards: [batch seq].
            quantile_values: [batch seq M] of the old critic's ensemble.
            bootstrap: [batch M] quantiles after the last action, or None.
        """
        values, last = quantile_mean(quantile_values), None if bootstrap is None else quantile_mean(bootstrap)
        config = self.config
        targets = lambda_returns(rewards, values, batch.action_mask, config.gamma, config.lam_critic, last)
        return targets.unsqueeze(-1)

    def token_losses(
        self, quantile_values: Tensor, targets: Tensor, old_values: Tensor | None, extra: dict[str, Tensor]
    ) -> tuple[Tensor, Metrics]:
        """Critic loss of each token, [n], and metrics. Here half the squared error, averaged over heads.

        Args:
            quantile_values: [n head M], carries the gradient.
            targets: [n K].
            old_values: [n head M] of the old critic, or None.
            extra: what the estimation carried along, one row per token.
        """
        error = value_loss(quantile_values.squeeze(-1), targets, _squeezed(old_values), self.config.value_clip)
        return error.mean(dim=-1), {}

    def prepare(
        self, returns: Tensor, quantile_values: Tensor, targets: Tensor, batch: TrainBatch, world: Collective
    ) -> tuple[dict[str, Tensor], Metrics]:
        """State and extras that depend on the whole batch: updates running scales; returns ``Estimates.extra``."""
        return {}, {}

    def evaluate(self, rewards: Tensor, critic: CriticOutput, batch: TrainBatch, world: Collective) -> Evaluation:
        """Advantages by GAE at lambda_actor over the read-out, and the critic's targets at ``lam_critic``."""
        quantiles = self.ensemble(critic.quantile_values)
        bootstrap = self.bootstrap(critic, batch)
        values = self.read_out(quantiles)
        last = None if bootstrap is None else self.read_out(bootstrap)
        advantages, _ = gae(rewards, values, batch.action_mask, self.config.gamma, self.lam_actor(batch), last)
        targets = self.value_targets(rewards, quantiles, batch, bootstrap)
        return Evaluation(quantiles, values, advantages, targets, {})

    def lam_actor(self, batch: TrainBatch) -> Lam:
        """Lambda of the advantages: ``lam_actor``, or one per row, [batch], with ``lam_actor_alpha``."""
        alpha = self.config.lam_actor_alpha
        return self.config.lam_actor if alpha is None else length_adaptive_lam(batch.action_mask, alpha)

    # --- the fixed course ------------------------------------------------------------------------------------------

    def estimate(self, batch: TrainBatch, old: OldOutputs, world: Collective) -> Estimates:
        """Correct the rewards, evaluate them with the old critic, normalise the advantages."""
        if old.critic is None:
            raise ValueError(f"{type(self).__name__} needs the old critic's output")
        corrected = self.correct_rewards(batch, old, world)
        batch, mask = corrected.batch, corrected.batch.action_mask
        rewards = self.token_rewards(corrected, old)
        quantiles, values, raw, targets, found = self.evaluate(rewards, old.critic, batch, world)
        returns = discounted_returns(rewards, mask, self.config.gamma)
        advantages, metrics = self.normalise(raw, mask, world)
        extra, prepared = self.prepare(returns, quantiles, targets, batch, world)
        metrics |= corrected.metrics | found | prepared
        metrics |= critic_metrics(
            old.critic.quantile_values, old.critic.raw_crossing_frac, quantiles, values, returns, mask, world
        )
        estimates = Estimates(
            advantages=advantages,
            value_targets=targets,
            old_values=old.critic.quantile_values.detach() if self.needs_old_values else None,
            metrics=metrics,
            extra=extra | self.carried_weights(corrected),
        )
        return self.conclude(estimates, batch, old, world)

    def critic_loss(
        self, output: CriticOutput, batch: TrainBatch, estimates: Estimates, counts: Denominators
    ) -> LossOutput:
        """``sum over action tokens / global number of action tokens``; only action tokens are computed at all."""
        if estimates.value_targets is None:
            raise ValueError("critic_loss needs value_targets")
        mask = batch.action_mask
        per_token = {name: _of_tokens(value, mask) for name, value in estimates.extra.items()}
        old = None if estimates.old_values is None else estimates.old_values[mask]
        values = output.quantile_values
        rows = values if values.dim() == 3 else values[mask]  # packed, or by token
        losses, metrics = self.token_losses(rows, estimates.value_targets[mask], old, per_token)
        if CRITIC_WEIGHTS in per_token:
            losses = losses * per_token[CRITIC_WEIGHTS]
        return LossOutput(losses.sum() / max(1.0, counts.num_action_tokens), metrics)

    def bootstrap(self, critic: CriticOutput, batch: TrainBatch) -> Tensor | None:
        """[batch M] quantiles after the last action: the critic's where the response was cut, 0 where it ended."""
        if not self.config.bootstrap_truncated:
            return None
        if END_VALUES not in critic.extra:
            raise ValueError(f"bootstrap_truncated needs CriticOutput.extra[{END_VALUES!r}]")
        return torch.where(batch.truncated[:, None], self.ensemble(critic.extra[END_VALUES]), 0.0)


def length_adaptive_lam(action_mask: Tensor, alpha: float) -> Tensor:
    """``lambda = 1 - 1 / (alpha * l)`` with l the row's sampled tokens, [batch] (VAPO, 2504.05118, alpha = 0.05).

    The weights lambda^k of the TD errors then sum to alpha * l. From the paper; responses of at most 1 / alpha tokens
    get 0 where the formula would be negative (our choice), and so does a row without sampled tokens. Nothing carries a
    gradient.
    """
    lengths = action_mask.sum(dim=1).double().clamp(min=1.0)
    return (1.0 - 1.0 / (alpha * lengths)).clamp(min=0.0)


def _of_tokens(value: Tensor, mask: Tensor) -> Tensor:
    """Entries of an ``Estimates.extra`` for each action token: [batch], [batch 1 ...] or [batch seq ...] -> [n ...]."""
    if value.dim() == 1:
        value = value[:, None]
    return value.expand(mask.shape + value.shape[2:])[mask]


def _squeezed(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.squeeze(-1)
