"""The sampled return as the one target."""

from __future__ import annotations

from torch import Tensor

from learner.algorithms.critic.targets.base import CriticTarget, OldCritic
from learner.maths.quantiles.quantiles import quantile_mean
from learner.maths.returns import discounted_returns


class MonteCarlo(CriticTarget):
    """The discounted sampled return, a point: K = 1. Unbiased, with the variance of the whole response."""

    needs_heads = False
    by_rows = True

    def targets(self, old: OldCritic) -> Tensor:
        """See :class:`CriticTarget`."""
        last = None if old.bootstrap is None else quantile_mean(old.bootstrap)
        return discounted_returns(old.rewards, old.mask, old.gamma, last).unsqueeze(-1)
