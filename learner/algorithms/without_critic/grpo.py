"""GRPO: the group of a prompt's samples takes the place of the critic."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from learner.algorithms.clipped_policy import ClippedPolicy, ClippedPolicyConfig
from learner.algorithms.invariance import Answer, answer_of, answers, gone
from learner.algorithms.records import Estimates, OldOutputs
from learner.algorithms.without_critic.groups import constant_groups, known_spread, z_scored_advantages
from learner.batch import TrainBatch
from learner.masking import masked
from learner.maths.collective import Collective, apply_globally
from learner.metrics import Mean


class GRPO(ClippedPolicy):
    """Group relative policy optimisation (2402.03300 Eq 3): ``A_i = (r_i - mean_g) / (std_g + eps)`` for every token.

    ``L = mean_i (1 / |o_i|) sum_t [clip term + beta * k3]``. A group whose rewards are all equal gives A = 0; the share
    of such trajectories is reported. Where a correction estimates the scores, std_g is that of true ones
    (:func:`.groups.known_spread`). Groups may be spread over ranks. With ``kl_mode: reward`` a trajectory's score is
    the sum of its token rewards, KL cost included (our choice).
    """

    min_samples_per_prompt = 2
    divides_by_spread: bool = True
    """Whether :meth:`group_advantages` are divided by the spread of the group's scores."""

    class Config(ClippedPolicyConfig):
        """Options of GRPO."""

        loss_aggregation: Literal["token_mean", "sequence_mean"] = Field(
            "sequence_mean", description="'token_mean': every token weighs the same; 'sequence_mean': every trajectory."
        )

    @answers(shift=gone("the group's mean"), scale=gone("the group's spread"))
    def group_advantages(self, scores: Tensor, group_ids: Tensor) -> Tensor:
        """Advantage of each trajectory of the global batch, [n]; the piece that relatives of GRPO replace."""
        return z_scored_advantages(scores, group_ids)

    def advantage_answer(self) -> Answer:
        """That of :meth:`group_advantages`."""
        return answer_of(self.group_advantages) if type(self).estimate is GRPO.estimate else Answer()

    def estimate(self, batch: TrainBatch, old: OldOutputs, world: Collective) -> Estimates:
        """Advantages from groups over all ranks, the same for each token of a trajectory."""
        corrected = self.correct_rewards(batch, old, world)
        batch, mask = corrected.batch, corrected.batch.action_mask
        rewards = self.token_rewards(corrected, old)
        scores = batch.scores + (rewards - batch.rewards).sum(dim=1)  # less the trajectory's KL cost
        per_row = apply_globally(self.group_advantages, world, scores, batch.group_ids)
        if self.divides_by_spread and corrected.score_variances is not None:
            columns = scores, corrected.score_variances, batch.group_ids
            per_row = per_row * apply_globally(known_spread, world, *columns)
        constant = apply_globally(constant_groups, world, scores, batch.group_ids)
        raw = masked(per_row[:, None].expand(mask.shape), mask)
        advantages, metrics = self.normalise(raw, mask, world)
        metrics["reward/zero_variance_frac"] = Mean(float(constant.sum()), float(constant.numel()))
        estimates = Estimates(advantages, metrics=metrics | corrected.metrics, extra=self.carried_weights(corrected))
        return self.conclude(estimates, batch, old, world)
