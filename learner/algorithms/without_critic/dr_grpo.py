"""Dr.GRPO: GRPO without its two biases, the division by the group's spread and by the response's length."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from learner.algorithms.invariance import ALIKE, answers, gone
from learner.algorithms.records import Denominators
from learner.algorithms.without_critic.groups import constant_groups, group_mean
from learner.algorithms.without_critic.grpo import GRPO
from learner.masking import token_mean


def centred_scores(scores: Tensor, group_ids: Tensor) -> Tensor:
    """``r_i - mean_g``, [n]; exactly 0 in a group whose scores are all equal."""
    return torch.where(constant_groups(scores, group_ids), 0.0, scores - group_mean(scores, group_ids))


class DrGRPO(GRPO):
    """GRPO done right (2503.20783): ``A_i = r_i - mean_g`` for every token, and no ``1 / |o_i|`` (from the paper).

    The token sum is divided by a constant: ``num_trajectories * norm_tokens`` with the longest response length as in
    the paper, or by default the number of action tokens of the mini-batch (our choice: no length has to be known). One
    loss is the other times a number that is the same for every token. Scores and advantages are detached.
    """

    divides_by_spread = False

    class Config(GRPO.Config):
        """Options of Dr.GRPO."""

        loss_aggregation: Literal["token_mean"] = Field(
            "token_mean", description="Every token weighs the same; weighing trajectories alike is what this removes."
        )
        norm_tokens: int | None = Field(
            None,
            ge=1,
            description="Divide the token sum by trajectories times this (the paper: the longest response); "
            "null: by the number of sampled tokens.",
        )

    @answers(shift=gone("the group's mean"), scale=ALIKE)
    def group_advantages(self, scores: Tensor, group_ids: Tensor) -> Tensor:
        """See :func:`centred_scores`."""
        return centred_scores(scores, group_ids)

    def aggregate(self, loss: Tensor, mask: Tensor, counts: Denominators) -> Tensor:
        """``sum_t l_t / constant``."""
        constant = counts.num_action_tokens
        if self.config.norm_tokens is not None:
            constant = counts.num_trajectories * self.config.norm_tokens
        return token_mean(loss, mask, constant)
