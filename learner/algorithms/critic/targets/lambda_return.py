"""The scalar lambda-return as the one target of every head."""

from __future__ import annotations

from torch import Tensor

from learner.algorithms.critic.targets.base import CriticTarget, OldCritic, WithLambda
from learner.maths.quantiles.quantiles import quantile_mean
from learner.maths.returns import lambda_returns


class LambdaReturn(CriticTarget):
    """``R_t = r_t + gamma * ((1 - lam) * V_{t+1} + lam * R_{t+1})`` (1506.02438), a point: K = 1.

    V is the mean of the ensemble's distribution whatever the read-out is, so that the critic stays unbiased.
    """

    needs_heads = False
    by_rows = True

    class Config(WithLambda):
        """Options of lambda-returns."""

    def targets(self, old: OldCritic) -> Tensor:
        """See :class:`CriticTarget`."""
        values = quantile_mean(old.quantiles)
        last = None if old.bootstrap is None else quantile_mean(old.bootstrap)
        returns = lambda_returns(old.rewards, values, old.mask, old.gamma, self.config.lam, last)
        return returns.unsqueeze(-1)
