"""Atoms of the lambda-mixture of return distributions, by sample replacement."""

from __future__ import annotations

from torch import Tensor

from learner.algorithms.critic.targets.base import CriticTarget, OldCritic, WithLambda
from learner.algorithms.streams import row_generators
from learner.maths.returns import mixture_targets


class Mixture(CriticTarget):
    """Sample replacement (2105.11366) as Eq 2 of 2512.03847 (our choice): K = M atoms of the lambda-mixture.

    The mean is the scalar lambda-return in expectation, and the distribution keeps its spread, which quantile-wise
    averages do not. The draws are the trajectory's own, the same on whichever rank it lands.
    """

    needs_heads = False
    by_rows = True

    class Config(WithLambda):
        """Options of mixtures."""

    def targets(self, old: OldCritic) -> Tensor:
        """See :class:`CriticTarget`."""
        generators = row_generators(old.batch.sample_seeds, "mixture")
        lam = self.config.lam
        return mixture_targets(old.rewards, old.quantiles, old.mask, old.gamma, lam, generators, old.bootstrap)
