"""Quantile-wise lambda-returns: Eq 2 of DVPO as a literal reading has it."""

from __future__ import annotations

from torch import Tensor

from learner.algorithms.critic.targets.base import CriticTarget, OldCritic, WithLambda
from learner.maths.returns import quantile_gae


class QuantileWise(CriticTarget):
    """``Y_t^i = Q_t^i + A_t^i`` (2512.03847 Eq 2, a public re-reading): scalar GAE of each quantile by itself.

    For 0 < lam < 1 it averages quantile functions where the lambda-operator mixes distributions, so the fixed point is
    too narrow (our derivation); means stay right.
    """

    needs_heads = False
    by_rows = True

    class Config(WithLambda):
        """Options of quantile-wise targets."""

    def targets(self, old: OldCritic) -> Tensor:
        """See :class:`CriticTarget`."""
        return quantile_gae(old.rewards, old.quantiles, old.mask, old.gamma, self.config.lam, old.bootstrap)[1]
