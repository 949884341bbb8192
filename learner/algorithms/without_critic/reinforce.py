"""REINFORCE: the score itself is the advantage. No critic, no baseline."""

from __future__ import annotations

from learner.algorithms.clipped_policy import ClippedPolicy, ClippedPolicyConfig
from learner.algorithms.invariance import ALIKE, answers
from learner.algorithms.records import Estimates, OldOutputs
from learner.batch import TrainBatch
from learner.masking import masked
from learner.maths.collective import Collective


class Reinforce(ClippedPolicy):
    """REINFORCE (Williams 1992): ``A_t = r`` for every token of a trajectory, after the reward corrections.

    What the forward correction of imperfect verifiers needs (2510.00915): with ``reward_correction: forward_corrected``
    each trajectory's ``grad log pi`` is multiplied by w, and nothing is subtracted from it. The ratio is clipped as in
    every method here (our choice); with one optimiser step per batch it is 1. Advantages are detached. With ``kl_mode:
    reward`` a trajectory's score is the sum of its token rewards, KL cost included.
    """

    class Config(ClippedPolicyConfig):
        """Options of REINFORCE."""

    @answers(shift=ALIKE, scale=ALIKE)
    def estimate(self, batch: TrainBatch, old: OldOutputs, world: Collective) -> Estimates:
        """The corrected score of each trajectory at each of its tokens."""
        corrected = self.correct_rewards(batch, old, world)
        mask = batch.action_mask
        rewards = self.token_rewards(corrected, old)
        scores = corrected.batch.scores + (rewards - corrected.batch.rewards).sum(dim=1)
        raw = masked(scores[:, None].expand(mask.shape), mask)
        advantages, metrics = self.normalise(raw, mask, world)
        estimates = Estimates(advantages, metrics=metrics | corrected.metrics, extra=self.carried_weights(corrected))
        return self.conclude(estimates, corrected.batch, old, world)
