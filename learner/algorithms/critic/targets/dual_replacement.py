"""Several draws of the sampled return distribution at once, so that a state is told more than one future."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from learner.algorithms.critic.targets.base import CriticTarget, OldCritic, WithLambda
from learner.algorithms.streams import row_generators
from learner.maths.returns import mixture_targets


class DualReplacement(CriticTarget):
    """``draws`` independent samples of the lambda-mixture for each token: K = draws * M atoms.

    Dual sample replacement of DistRLVR ("Beyond Scalar Critics", openreview 3e46ayVUgj): supervision is made diverse
    twice, by several responses to a prompt (``training.samples_per_prompt``) and by several sample-replacement targets
    (2105.11366) of each token, which is what this piece does. Known to us from the abstract and the description of the
    authors' program; forms are ours. With one draw it is ``mixture``, number by number.
    """

    needs_heads = False
    by_rows = True

    class Config(WithLambda):
        """Options of dual sample replacement."""

        draws: int = Field(4, ge=1, le=64, description="Samples of the return distribution for each token.")

    def targets(self, old: OldCritic) -> Tensor:
        """See :class:`CriticTarget`."""

        def draw(step: int) -> Tensor:
            generators = row_generators(old.batch.sample_seeds, "mixture", step)
            lam = self.config.lam
            return mixture_targets(old.rewards, old.quantiles, old.mask, old.gamma, lam, generators, old.bootstrap)

        return torch.cat([draw(step) for step in range(self.config.draws)], dim=-1).sort(dim=-1).values
