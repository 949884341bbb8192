"""Robust Bellman targets: bootstrap from the worst case over a set of value distributions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor

from learner.algorithms.critic.targets.base import LEARNED, CriticTarget, Evaluation, OldCritic, WithLambda
from learner.algorithms.invariance import ALIKE, answers, gone
from learner.masking import masked
from learner.maths.logprobs import scatter_to_tokens
from learner.maths.quantiles.quantiles import quantile_mean
from learner.maths.quantiles.worst_case import contaminated, worst_cvar, worst_kl, worst_tv
from learner.maths.returns import lambda_returns
from learner.metrics import Max, Mean, Metrics
from learner.models.spec import CriticConfig


class RobustTarget(CriticTarget):
    """``Y_t = r_t + gamma * ((1 - lam) * Vrob_{t+1} + lam * Y_{t+1})`` and ``A_t = Y_t - V_t`` (our form).

    Of the robust baseline in 2512.03847 only minimum aggregation is public. V is the mean of the ensemble; Y is taken
    at ``lam_actor`` for A and at ``lam`` for the targets; every head regresses to Y_t. Everything is detached.

    Pessimism adds up along the response: a gap e lowers the targets by about ``(1 - lam) * T * e``. It is reported.
    """

    by_rows = True
    needs_lowest = True

    class Config(WithLambda):
        """Options of every robust target."""

    @abstractmethod
    def worst_values(self, quantile_values: Tensor, lowest: Tensor, old: OldCritic) -> Tensor:
        """Vrob of each state, [... head M] -> [...], detached.

        Args:
            lowest: scalar, the least V of the batch.
        """

    @answers(shift=gone(LEARNED), scale=ALIKE)
    def __call__(self, old: OldCritic) -> Evaluation:
        """Robust targets and advantages, and by how much pessimism lowered the targets."""
        mask, batch, lam, lowest = old.mask, old.batch, self.config.lam, old.lowest
        assert lowest is not None
        worst = scatter_to_tokens(self.worst_values(old.output.quantile_values[mask], lowest, old), mask)
        last = plain_last = None
        if old.bootstrap is not None:
            assert old.output.end_values is not None
            end = self.worst_values(old.output.end_values, lowest, old)
            last, plain_last = torch.where(batch.truncated, end, 0.0), quantile_mean(old.bootstrap)
        robust = lambda_returns(old.rewards, worst, mask, old.gamma, old.lam_actor, last)
        targets = lambda_returns(old.rewards, worst, mask, old.gamma, lam, last)
        plain = lambda_returns(old.rewards, old.values, mask, old.gamma, lam, plain_last)
        advantages = masked(robust - masked(old.values, mask), mask)
        columns = {"gap": old.values - worst, "lowered": plain - targets}
        return Evaluation(advantages, targets.unsqueeze(-1), {}, columns)

    def summary(self, columns: Mapping[str, Tensor], mask: Tensor) -> Metrics:
        """See :class:`CriticTarget`."""
        return pessimism_metrics(columns["gap"][mask], columns["lowered"][mask])

    def targets(self, old: OldCritic) -> Tensor:
        """See :class:`CriticTarget`."""
        return self(old).targets


class MinHeads(RobustTarget):
    """The least head's mean (2512.03847 names it). With one head this is PPO."""

    def worst_values(self, quantile_values: Tensor, lowest: Tensor, old: OldCritic) -> Tensor:
        """See :class:`RobustTarget`."""
        heads = [old.ensemble(head) for head in quantile_values.split(1, dim=-2)]
        return torch.stack([quantile_mean(head) for head in heads]).amin(dim=0)


class Contamination(RobustTarget):
    """A share rho of the future is as bad as the worst state of the batch; rho = 0 is PPO."""

    needs_heads = False

    class Config(WithLambda):
        """Options of the contamination set."""

        rho: float = Field(0.1, ge=0.0, lt=1.0, description="Share of the mass that is as bad as the worst state.")

    def worst_values(self, quantile_values: Tensor, lowest: Tensor, old: OldCritic) -> Tensor:
        """See :class:`RobustTarget`."""
        return contaminated(quantile_mean(old.ensemble(quantile_values)), lowest, self.config.rho)


class _OfDistribution(RobustTarget):
    """A set around the predicted distribution, which a scalar critic does not have."""

    needs_heads = False

    @property
    @abstractmethod
    def is_neutral(self) -> bool:
        """Whether the set holds the predicted distribution alone."""

    def misfit(self, critic: CriticConfig) -> str:
        """See :class:`CriticTarget`."""
        if critic.num_quantiles > 1 or self.is_neutral:
            return ""
        return (
            "looks at the distribution of the value, so critic.num_quantiles must be above 1 (robust_min_heads and "
            "robust_contamination work with a scalar critic)"
        )


class RobustCVaR(_OfDistribution):
    """The mean of the lower tail of the predicted distribution; alpha = 1 is PPO."""

    by_rows = False  # a matrix product's last bits depend on the number of rows; these are to be what they were

    class Config(WithLambda):
        """Options of the CVaR set."""

        alpha: float = Field(0.3, gt=0.0, le=1.0, description="Share of the mass, from below.")

    @property
    def is_neutral(self) -> bool:
        """See :class:`_OfDistribution`."""
        return bool(self.config.alpha == 1.0)

    def worst_values(self, quantile_values: Tensor, lowest: Tensor, old: OldCritic) -> Tensor:
        """See :class:`RobustTarget`."""
        return worst_cvar(old.ensemble(quantile_values), self.config.alpha)


class RobustTV(_OfDistribution):
    """The worst distribution within total variation rho on the same atoms (cf. 2208.05129 Eq 8); rho = 0 is PPO."""

    by_rows = False  # as of :class:`RobustCVaR`

    class Config(WithLambda):
        """Options of the total-variation ball."""

        rho: float = Field(0.1, ge=0.0, lt=1.0, description="Total variation: share of the mass that may move.")

    @property
    def is_neutral(self) -> bool:
        """See :class:`_OfDistribution`."""
        return bool(self.config.rho == 0.0)

    def worst_values(self, quantile_values: Tensor, lowest: Tensor, old: OldCritic) -> Tensor:
        """See :class:`RobustTarget`."""
        return worst_tv(old.ensemble(quantile_values), self.config.rho)


class RobustKL(RobustTV):
    """The worst distribution within KL divergence rho of the predicted one; rho = 0 is PPO."""

    by_rows = True

    class Config(WithLambda):
        """Options of the KL ball."""

        rho: float = Field(0.1, ge=0.0, description="KL divergence, in nats.")

    def worst_values(self, quantile_values: Tensor, lowest: Tensor, old: OldCritic) -> Tensor:
        """See :class:`RobustTarget`."""
        return worst_kl(old.ensemble(quantile_values), self.config.rho)


def pessimism_metrics(gaps: Tensor, lowered: Tensor) -> Metrics:
    """How much lower the worst case is than the value, and what that has added up to in the critic's targets; [n]."""
    count = float(gaps.numel())
    return {
        "critic/pessimism": Mean(float(gaps.double().sum()), count),
        "critic/target_pessimism": Mean(float(lowered.double().sum()), count),
        "critic/target_pessimism_max": Max(float(lowered.max()) if count else 0.0),
    }
