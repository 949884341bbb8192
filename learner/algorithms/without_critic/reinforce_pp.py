"""REINFORCE++: returns whitened over the whole batch, with or without a group baseline. No critic."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field
from torch import Tensor

from learner.algorithms.clipped_policy import ClippedPolicy, ClippedPolicyConfig
from learner.algorithms.invariance import ALIKE, MIXED, Answer, answer_of, answers, gone
from learner.algorithms.records import CorrectedRewards, Estimates, OldOutputs
from learner.algorithms.without_critic.dr_grpo import centred_scores
from learner.batch import TrainBatch
from learner.masking import WhitenMode
from learner.maths.collective import Collective, apply_globally
from learner.maths.returns import discounted_returns


class ReinforcePP(ClippedPolicy):
    """REINFORCE++ (2501.03262): ``G_t = sum_{s >= t} gamma^(s - t) * (r_s - beta * kl_s)``, whitened, clipped ratio.

    From the paper: the KL cost (k1) of every later token is part of a token's return, and the returns are whitened over
    all action tokens of the global batch. Returns are detached.
    """

    class Config(ClippedPolicyConfig):
        """Options of REINFORCE++."""

        kl_coef: float = Field(1e-3, ge=0.0, description="Weight of the KL penalty towards the frozen starting policy.")
        kl_mode: Literal["reward", "loss"] = Field(
            "reward",
            description="'reward': k1 estimate subtracted from token rewards; 'loss': an estimate in the loss.",
        )
        gamma: float = Field(1.0, ge=0.0, le=1.0, description="Discount per sampled token.")
        whiten: WhitenMode = Field(
            "std", description="Normalisation of returns over all action tokens of the batch: none, std, scale or mad."
        )

    @answers(shift=ALIKE, scale=ALIKE)
    def baseline(self, corrected: CorrectedRewards, world: Collective) -> CorrectedRewards:
        """The scores less what they are compared with; here they stay as they are."""
        return corrected

    def advantage_answer(self) -> Answer:
        """That of :meth:`baseline`; a discount makes of one number a different one at each token."""
        found = answer_of(self.baseline) if type(self).estimate is ReinforcePP.estimate else Answer()
        is_even = self.config.gamma == 1.0 or found.shift.taken_out_by
        return found if is_even else replace(found, shift=MIXED)

    def estimate(self, batch: TrainBatch, old: OldOutputs, world: Collective) -> Estimates:
        """Whitened returns, over all ranks."""
        corrected = self.correct_rewards(batch, old, world)
        mask = corrected.batch.action_mask
        rewards = self.token_rewards(self.baseline(corrected, world), old)
        returns = discounted_returns(rewards, mask, self.config.gamma)
        advantages, metrics = self.normalise(returns, mask, world)
        estimates = Estimates(advantages, metrics=metrics | corrected.metrics, extra=self.carried_weights(corrected))
        return self.conclude(estimates, corrected.batch, old, world)


class ReinforcePPBaseline(ReinforcePP):
    """REINFORCE++-baseline (2501.03262): the group's mean is subtracted from the score first, then whitening as above.

    The KL penalty is a loss of its own, k2 = d^2 / 2 with d = logp_ref - logp (from the paper).
    """

    min_samples_per_prompt = 2

    class Config(ReinforcePP.Config):
        """Options of REINFORCE++-baseline."""

        kl_mode: Literal["reward", "loss"] = Field(
            "loss", description="'reward': k1 estimate subtracted from token rewards; 'loss': an estimate in the loss."
        )
        kl_loss: Literal["k2", "k3"] = Field("k2", description="Estimator of the KL penalty with kl_mode 'loss'.")

    @answers(shift=gone("the group's mean"), scale=ALIKE)
    def baseline(self, corrected: CorrectedRewards, world: Collective) -> CorrectedRewards:
        """Scores less the mean of their group."""
        batch = corrected.batch
        centred: Tensor = apply_globally(centred_scores, world, batch.scores, batch.group_ids)
        return corrected.with_scores(centred, {})
