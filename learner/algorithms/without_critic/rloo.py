"""RLOO: each sample's baseline is the mean of the other samples of its prompt."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from learner.algorithms.invariance import ALIKE, answers, gone
from learner.algorithms.without_critic.dr_grpo import centred_scores
from learner.algorithms.without_critic.groups import group_index
from learner.algorithms.without_critic.grpo import GRPO


class RLOO(GRPO):
    """REINFORCE leave-one-out (2402.14740): ``A_i = r_i - (1 / (G - 1)) sum_{j != i} r_j``.

    From the paper, computed as ``G / (G - 1) * (r_i - mean_g)``, which is equal; G is the number of samples that the
    group really has, and a group of one gets 0 (our choice). The KL cost belongs to the reward, as in the paper. The
    ratio is clipped as in every method here (our choice); with one optimiser step per batch it is 1 and the gradient is
    that of REINFORCE. Scores and advantages are detached.
    """

    divides_by_spread = False

    class Config(GRPO.Config):
        """Options of RLOO."""

        kl_mode: Literal["reward", "loss"] = Field(
            "reward", description="'reward': k1 estimate subtracted from the score; 'loss': an estimate in the loss."
        )
        loss_aggregation: Literal["token_mean", "sequence_mean"] = Field(
            "token_mean", description="'token_mean': every token weighs the same; 'sequence_mean': every trajectory."
        )

    @answers(shift=gone("the mean of the others"), scale=ALIKE)
    def group_advantages(self, scores: Tensor, group_ids: Tensor) -> Tensor:
        """Leave-one-out advantage of each trajectory of the global batch, [n]."""
        index, sizes = group_index(group_ids)
        size = sizes[index].to(scores.dtype)
        return centred_scores(scores, group_ids) * size / (size - 1.0).clamp(min=1.0)
