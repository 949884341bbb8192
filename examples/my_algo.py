"""An algorithm of one's own in one file outside the project; docs/algorithms.md walks through it.

Run it from this folder (or with it on PYTHONPATH), naming it in the configuration:

    algorithm: {type: "my_algo:MyAlgorithm", softness: 0.5, reward_correction: percentile_clip}
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from learner.algorithms.base import Collective, Estimates, OldOutputs, apply_globally
from learner.algorithms.clipped_policy import ClippedPolicy, ClippedPolicyConfig
from learner.batch import TrainBatch
from learner.masking import masked
from learner.metrics import Mean


def median_advantages(scores: Tensor, group_ids: Tensor, softness: float) -> Tensor:
    """``A_i = tanh((r_i - median_g) / softness)``, [n]: a wild reward moves neither the baseline nor A beyond 1."""
    advantages = torch.empty_like(scores)
    for group in group_ids.unique():
        members = group_ids == group
        advantages[members] = torch.tanh((scores[members] - scores[members].quantile(0.5)) / softness)
    return advantages


class MyAlgorithm(ClippedPolicy):
    """No critic: each reward is compared with the median of its prompt's samples, softly bounded."""

    min_samples_per_prompt = 2

    class Config(ClippedPolicyConfig):
        """Options: everything that clipped policies have, and one more."""

        softness: float = Field(1.0, gt=0.0, description="Distance from the median at which an advantage levels off.")

    def estimate(self, batch: TrainBatch, old: OldOutputs, world: Collective) -> Estimates:
        """Advantages over the groups of all ranks, the same for each token of a trajectory."""
        corrected = self.correct_rewards(batch, old, world)
        mask, scores = batch.action_mask, corrected.batch.scores
        per_row = apply_globally(
            lambda s, g: median_advantages(s, g, self.config.softness), world, scores, batch.group_ids
        )
        advantages, metrics = self.normalise(masked(per_row[:, None].expand(mask.shape), mask), mask, world)
        metrics["advantage/levelled_frac"] = Mean(float((per_row.abs() > 0.9).sum()), float(len(per_row)))
        estimates = Estimates(advantages, metrics=metrics | corrected.metrics, extra=self.carried_weights(corrected))
        return self.conclude(estimates, corrected.batch, old, world)
