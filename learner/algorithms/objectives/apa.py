"""APA: regress the log-ratio to the starting policy onto the advantage, instead of clipping a ratio."""

from __future__ import annotations

import torch
from pydantic import Field

from learner.algorithms.objectives.base import PolicyObjective
from learner.algorithms.records import Estimates, PolicyInputs
from learner.masking import masked
from learner.maths.losses.policy import MAX_LOG_RATIO, ClippedLoss
from rollout.component import StrictModel


class AdvantageAlignment(PolicyObjective):
    """Advantage-induced policy alignment (2306.02231): ``(log pi - log pi_ref - A / lambda)^2`` on sampled tokens.

    Its minimiser is ``pi ~ pi_ref * exp(A / lambda)``, so lambda is the one knob that bounds the KL to the starting
    policy; critic and GAE stay. Advantage and reference are detached; the gradient goes through log pi only. The form
    is from the paper; a mean over tokens and the default of lambda, in units of the advantage, are our choice.
    """

    needs_reference = True

    class Config(StrictModel):
        """Options of APA."""

        kl_scale: float = Field(
            1.0, gt=0.0, description="lambda, in units of the advantage; larger stays closer to the starting policy."
        )

    def __call__(self, inputs: PolicyInputs, estimates: Estimates) -> ClippedLoss:
        """See :class:`learner.algorithms.objectives.base.PolicyObjective`."""
        if inputs.ref_logprobs is None:
            raise ValueError("apa needs ref_logprobs")
        mask = inputs.action_mask
        target = inputs.ref_logprobs.detach() + estimates.advantages.detach() / self.config.kl_scale
        loss = (masked(inputs.logprobs, mask) - masked(target, mask)).square()
        log_ratio = masked((inputs.logprobs - inputs.old_logprobs).detach(), mask)
        ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
        return ClippedLoss(masked(loss, mask), ratio, torch.zeros_like(mask))
