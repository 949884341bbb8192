"""REAL: rewards are labels, and the policy is trained as a classifier of its own responses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor

from learner.algorithms.objectives.base import PolicyObjective
from learner.algorithms.records import Estimates, OldOutputs, PolicyInputs, Rows
from learner.batch import TrainBatch
from learner.masking import masked
from learner.maths.collective import Collective, apply_globally
from learner.maths.losses.policy import MAX_LOG_RATIO, ClippedLoss
from learner.metrics import Mean, Metrics
from rollout.component import StrictModel


@dataclass(frozen=True)
class Labels(Rows):
    """Of each trajectory, [batch]: 1 or -1 for right or wrong, and how many of its prompt have the same label."""

    signs: Tensor
    sizes: Tensor


def same_label_sizes(signs: Tensor, group_ids: Tensor) -> Tensor:
    """How many trajectories of each row's group have its label, itself included, [n] float64; 0 if all of them have."""
    is_mate = group_ids[:, None] == group_ids
    alike = (is_mate & (signs[:, None] == signs)).sum(dim=1)
    return torch.where(alike == is_mate.sum(dim=1), 0, alike).double()


class RewardsAsLabels(PolicyObjective):
    """Rewards as labels (2602.05630): ``log(1 + sum_{O+} exp(-s_i / tau)) + log(1 + sum_{O-} exp(s_j / tau))``.

    s is the mean log-ratio of a response's tokens to the policy before the update, O+ and O- the right and the
    wrong responses to a prompt; the 1 is the paper's anchor. The gradient with respect to s_k of a right one is
    ``-1 / tau * 1 / (1 + C * exp(s_k / tau))``, C being 1 plus the other summands of O+: bounded by 1 / tau, and
    largest where the policy has moved the wrong way. Here each response has the loss ``log(n + exp(-s / tau))``, or
    +s for a wrong one, with n the number that share its label. That is this gradient with the others where they are
    before the first step (s = 0), as members of a group may lie on different ranks: exact in the first step of a
    batch, our choice in later ones. Advantages are not read; a score above 1/2 is right; a group of one label gives
    no loss, as in the authors' program. The mean is over trajectories instead of prompts, a constant factor.
    """

    is_proportional = False
    reads_verdicts = True

    class Config(StrictModel):
        """Options of REAL."""

        temperature: float = Field(0.5, gt=0.0, description="tau; smaller makes the classifier's boundary sharper.")

    def prepare(
        self, advantages: Tensor, batch: TrainBatch, old: OldOutputs, world: Collective
    ) -> tuple[Rows, Metrics]:
        """Label every trajectory, and count over all ranks."""
        signs = torch.where(batch.scores > 0.5, 1.0, -1.0).to(batch.scores)
        sizes = apply_globally(same_label_sizes, world, signs, batch.group_ids).to(signs)
        return Labels(signs, sizes), {"policy/real_right_frac": Mean(float((signs > 0).sum()), float(len(signs)))}

    def __call__(self, inputs: PolicyInputs, estimates: Estimates) -> ClippedLoss:
        """See :class:`learner.algorithms.objectives.base.PolicyObjective`."""
        labels = estimates.carried(self, Labels)
        if labels is None:
            raise ValueError("real needs the labels that prepare found")
        mask = inputs.action_mask
        gap = masked(inputs.logprobs, mask) - masked(inputs.old_logprobs.detach(), mask)
        mean = gap.sum(dim=1) / mask.sum(dim=1).clamp(min=1)
        sizes = labels.sizes.to(mean)
        loss = torch.logaddexp(sizes.clamp(min=1.0).log(), -labels.signs.to(mean) * mean / self.config.temperature)
        loss = torch.where(sizes > 0.0, loss, torch.zeros_like(loss))
        ratio = gap.detach().clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
        return ClippedLoss(masked(loss[:, None].expand(mask.shape), mask), ratio, torch.zeros_like(mask))
