"""GSPO: one ratio for a whole response, clipped as a whole."""

from __future__ import annotations

from pydantic import Field

from learner.algorithms.objectives.base import PolicyObjective
from learner.algorithms.records import Estimates, PolicyInputs
from learner.maths.losses.policy import ClippedLoss, sequence_clipped_loss
from rollout.component import StrictModel


class SequenceClip(PolicyObjective):
    """Group sequence policy optimisation (2507.18071): the unit of the ratio is the unit of the reward.

    The ratio is the geometric mean of a response's token ratios, and all of a response is clipped or none of it; see
    :func:`learner.maths.losses.policy.sequence_clipped_loss`. With ``loss_aggregation: sequence_mean`` and one
    advantage for a response (a method without a critic) it is Eq 5, with advantages for each token it is Eq 13
    (GSPO-token). Its range is two orders of magnitude narrower than that of token ratios, as the mean of many
    logarithms moves little; both bounds are the paper's.
    """

    is_proportional = True
    inert_in_first_step = ("clip_low", "clip_high")

    class Config(StrictModel):
        """Options of GSPO."""

        clip_low: float = Field(
            3e-4, ge=0.0, le=1.0, description="The response's ratio is clipped below at 1 minus this."
        )
        clip_high: float = Field(4e-4, ge=0.0, description="The response's ratio is clipped above at 1 plus this.")

    def __call__(self, inputs: PolicyInputs, estimates: Estimates) -> ClippedLoss:
        """See :class:`learner.algorithms.objectives.base.PolicyObjective`."""
        return sequence_clipped_loss(
            inputs.logprobs,
            inputs.old_logprobs,
            estimates.advantages,
            inputs.action_mask,
            self.config.clip_low,
            self.config.clip_high,
        )
