"""BAPO: clip bounds that widen until positive tokens carry their share of the gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field, model_validator
from torch import Tensor

from learner.algorithms.objectives.base import PolicyObjective
from learner.algorithms.records import Estimates, OldOutputs, PolicyInputs, Rows
from learner.batch import TrainBatch
from learner.maths.collective import Collective
from learner.maths.losses.policy import MAX_LOG_RATIO, ClippedLoss, clipped_policy_loss
from learner.metrics import Last, Metrics
from rollout.component import StrictModel


@dataclass(frozen=True)
class ClipBounds(Rows):
    """The bounds of the ratio, [batch 1 2], the same in every row."""

    bounds: Tensor


def positive_share(advantages: Tensor, ratios: Tensor, weights: Tensor, low: float, high: float) -> float:
    """Share of the policy gradient that tokens with a positive advantage carry (2510.18927, our choice of form).

    A token contributes ``w * rho * |A|`` while the clip lets its gradient through, that is if (A > 0 and rho < high) or
    (A < 0 and rho > low), and 0 otherwise. So the share rises with both bounds; in the published form, which counts the
    clipped value of a cut token, a higher lower bound could only make it fall. All detached.

    Args:
        advantages: [n].
        ratios: [n], rho of the learner over the sampler.
        weights: [n], probability of the token under the sampler.

    Returns:
        In [0, 1]; 1 if no negative token is active.
    """
    size = (weights * ratios * advantages.abs()).double()
    positive = float(size[(advantages > 0) & (ratios < high)].sum())
    negative = float(size[(advantages < 0) & (ratios > low)].sum())
    return positive / (positive + negative) if negative > 0.0 else 1.0


class BalancedClip(PolicyObjective):
    """Balanced policy optimisation with adaptive clipping (2510.18927): asymmetric bounds chosen for each batch.

    ``L = max(-rho * A, -clip(rho, c_lo, c_hi) * A)`` with rho over the *sampler's* policy (the method is made for stale
    data). Before the first optimiser step of a batch the bounds start at ``low_start`` and ``high_start``; c_hi is
    raised step by step to at most ``high_max``, then c_lo to at most ``low_max``, until the tokens with A > 0 carry
    ``positive_share`` of the gradient (see the function of that name). Steps and limits are from the paper, as is the
    order; that the adaptation runs once a batch, over all ranks, on the ratios before the first step, is our choice.
    """

    needs_old_logprobs = True
    over_sampler = True
    replaces = ("clip_ratio_low", "clip_ratio_high", "dual_clip", "importance_cap")
    is_proportional = True

    class Config(StrictModel):
        """Options of BAPO."""

        positive_share: float = Field(
            0.4, ge=0.0, le=1.0, description="Share of the gradient that positive tokens shall carry."
        )
        low_start: float = Field(0.6, ge=0.0, le=1.0, description="Lower bound of the ratio to begin with.")
        low_max: float = Field(0.9, ge=0.0, le=1.0, description="Highest lower bound.")
        low_step: float = Field(0.02, gt=0.0, description="Step of the lower bound.")
        high_start: float = Field(1.2, ge=1.0, description="Upper bound of the ratio to begin with.")
        high_max: float = Field(3.0, ge=1.0, description="Highest upper bound.")
        high_step: float = Field(0.05, gt=0.0, description="Step of the upper bound.")

        @model_validator(mode="after")
        def _ordered(self) -> BalancedClip.Config:
            for side in ("low", "high"):
                start, end = getattr(self, f"{side}_start"), getattr(self, f"{side}_max")
                if start > end:
                    raise ValueError(f"{side}_start must not exceed {side}_max, got {start} and {end}")
            return self

    def bounds(self, advantages: Tensor, ratios: Tensor, weights: Tensor) -> tuple[float, float, float]:
        """Bounds (c_lo, c_hi) for the tokens [n] of all ranks, and the share of positive tokens under them."""
        c = self.config
        low, high, steps = c.low_start, c.high_start, 0
        share = positive_share(advantages, ratios, weights, low, high)
        while share < c.positive_share and high < c.high_max:
            steps += 1
            high = min(c.high_max, c.high_start + steps * c.high_step)
            share = positive_share(advantages, ratios, weights, low, high)
        steps = 0
        while share < c.positive_share and low < c.low_max:
            steps += 1
            low = min(c.low_max, c.low_start + steps * c.low_step)
            share = positive_share(advantages, ratios, weights, low, high)
        return low, high, share

    def prepare(
        self, advantages: Tensor, batch: TrainBatch, old: OldOutputs, world: Collective
    ) -> tuple[Rows, Metrics]:
        """Choose the bounds over the whole batch."""
        mask = batch.action_mask
        gap = (old.logprobs - batch.rollout_logprobs)[mask].clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        columns = (advantages[mask], gap.exp(), batch.rollout_logprobs[mask].exp())
        low, high, share = self.bounds(*(world.gather(column) for column in columns))
        pair = torch.tensor([[[low, high]]], dtype=torch.float64, device=mask.device).expand(len(batch), 1, 2)
        metrics: Metrics = {
            "policy/bapo_clip_low": Last(low),
            "policy/bapo_clip_high": Last(high),
            "policy/bapo_positive_share": Last(share),
        }
        return ClipBounds(pair), metrics

    def __call__(self, inputs: PolicyInputs, estimates: Estimates) -> ClippedLoss:
        """See :class:`learner.algorithms.objectives.base.PolicyObjective`."""
        carried = estimates.carried(self, ClipBounds)
        if carried is None:
            raise ValueError("bapo needs the bounds that prepare found")
        bounds = carried.bounds
        low, high = bounds[0, 0].tolist() if len(bounds) else (self.config.low_start, self.config.high_start)
        return clipped_policy_loss(
            inputs.logprobs, inputs.rollout_logprobs, estimates.advantages, inputs.action_mask, 1.0 - low, high - 1.0
        )
