"""QAE: a quantile of the group takes the place of its mean as the baseline."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from learner.algorithms.invariance import answers, gone
from learner.algorithms.without_critic.groups import constant_groups, group_quantile, group_std
from learner.algorithms.without_critic.grpo import GRPO


class QAE(GRPO):
    """Quantile advantage estimation (2509.22611): ``A_i = (r_i - Q_K) / (std_g + eps)``, Q_K the group's K-quantile.

    The baseline is from the paper; its place in GRPO's normalised advantage and loss is our reading. With 0/1 rewards
    only the rare outcome gets a signal: successes of a hard prompt (success rate at most 1 - K), failures of an easy
    one. An outlier moves the mean but not the quantile. A group whose rewards are all equal gives 0. Scores and
    advantages are detached.
    """

    class Config(GRPO.Config):
        """Options of QAE."""

        baseline_level: float = Field(0.4, gt=0.0, lt=1.0, description="K, the level of the group's quantile.")

    @answers(shift=gone("the group's quantile"), scale=gone("the group's spread"))
    def group_advantages(self, scores: Tensor, group_ids: Tensor) -> Tensor:
        """Advantage of each trajectory of the global batch, [n]."""
        above = scores - group_quantile(scores, group_ids, self.config.baseline_level)
        advantages = above / (group_std(scores, group_ids) + 1e-6)
        return torch.where(constant_groups(scores, group_ids), 0.0, advantages)
