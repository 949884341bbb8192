"""CISPO: the importance weight is clipped, the gradient is not."""

from __future__ import annotations

from pydantic import Field

from learner.algorithms.objectives.base import PolicyObjective
from learner.algorithms.records import Estimates, PolicyInputs
from learner.maths.losses.policy import ClippedLoss, clipped_weight_loss
from rollout.component import StrictModel


class ClippedWeight(PolicyObjective):
    """Clipped importance-sampling policy optimisation (2506.13585): REINFORCE with a detached, clipped ratio.

    PPO's clip takes the gradient of a token away once its ratio leaves the range, and rare tokens leave it first; here
    they keep it, with a bounded weight (:func:`learner.maths.losses.policy.clipped_weight_loss`). The paper has no
    bound below, tunes the one above without saying its value, and takes the mean over all tokens
    (``loss_aggregation: token_mean``); a default of 4, so a weight of at most 5, is our choice.
    """

    is_proportional = True
    inert_in_first_step = ("clip_high",)

    class Config(StrictModel):
        """Options of CISPO."""

        clip_low: float | None = Field(
            None, ge=0.0, le=1.0, description="The weight is at least 1 minus this; null for no bound below."
        )
        clip_high: float = Field(4.0, ge=0.0, description="The weight is at most 1 plus this.")

    def __call__(self, inputs: PolicyInputs, estimates: Estimates) -> ClippedLoss:
        """See :class:`learner.algorithms.objectives.base.PolicyObjective`."""
        return clipped_weight_loss(
            inputs.logprobs,
            inputs.old_logprobs,
            estimates.advantages,
            inputs.action_mask,
            self.config.clip_low,
            self.config.clip_high,
        )
