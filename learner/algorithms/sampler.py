"""What is done about the distance between the learner's policy and the one that sampled: weights, a mask, metrics."""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Tensor

from learner.algorithms.records import PolicyInputs
from learner.masking import masked
from learner.maths.losses.kl import kl_estimate
from learner.maths.losses.policy import RatioLevel, ratio_logarithm, truncated_importance_weights
from learner.metrics import EffectiveShare, Max, Mean, Metrics, Percentile
from rollout.component import StrictModel


class SamplerMask(StrictModel):
    """Which tokens are not learned from because the learner's policy is too far from the one that sampled them.

    The ratio ``rho = pi_learner / pi_sampler`` (the learner's before the update) of a token, or of a whole response as
    the product or the geometric mean of its tokens', must lie within ``[low, high]``; outside, the policy loss is 0.
    A mask rejects what a truncated weight would still learn from with a bounded weight. The product is the exact
    weight of a response but falls out of any range as responses grow; the mean does not depend on their length.
    """

    level: RatioLevel = Field(
        description="Ratio of a 'token', or of a whole response: 'geometric' mean of its tokens', or their product, "
        "'sequence'."
    )
    low: float = Field(0.0, ge=0.0, le=1.0, description="Lowest ratio that is learned from.")
    high: float = Field(ge=1.0, description="Highest ratio that is learned from.")

    @model_validator(mode="after")
    def _lets_something_through(self) -> SamplerMask:
        if self.low == self.high:
            raise ValueError("low must be below high; with 1 and 1 rounding would reject everything")
        return self

    def __call__(self, inputs: PolicyInputs) -> Tensor:
        """[batch seq], 1 where the ratio is within the bounds, 0 where it is not; 1 outside the action mask."""
        gap = ratio_logarithm(inputs.old_logprobs, inputs.rollout_logprobs, inputs.action_mask, self.level).double()
        low = torch.tensor(self.low, dtype=torch.float64).log()  # -inf for 0
        is_near = (gap >= low.to(gap.device)) & (gap <= torch.tensor(self.high, dtype=torch.float64).log().item())
        return (is_near | ~inputs.action_mask).to(inputs.old_logprobs)


def sampler_factor(inputs: PolicyInputs, cap: float | None, mask: SamplerMask | None) -> tuple[Tensor | None, Metrics]:
    """What the surrogate of each token is multiplied by, [batch seq] or None for 1, and metrics.

    The truncated weight of the learner over the sampler outside of a clip over the learner's own ratio is the decoupled
    objective of 2110.00641 with the policy before the update as its proximal policy, but for the truncation.

    Args:
        cap: of the truncated importance weight; None for no weight.
        mask: None for no mask.
    """
    factor: Tensor | None = None
    metrics: Metrics = {}
    if cap is not None:
        factor = truncated_importance_weights(inputs.old_logprobs, inputs.rollout_logprobs, inputs.action_mask, cap)
    if mask is not None:
        kept = mask(inputs)
        factor = kept if factor is None else factor * kept
        metrics["policy/sampler_masked_frac"] = mean_over(1.0 - kept, inputs.action_mask)
    return factor, metrics


def mean_over(values: Tensor, mask: Tensor) -> Mean:
    """A metric: mean over the true positions."""
    return Mean(float(masked(values.detach(), mask).double().sum()), float(mask.sum()))


def sampler_metrics(inputs: PolicyInputs, cap: float | None) -> Metrics:
    """How far the learner's idea of the sampling policy is from what the sampler reported."""
    mask = inputs.action_mask
    kl = kl_estimate(inputs.rollout_logprobs, inputs.old_logprobs, mask, "k3")  # of KL(sampler || learner)
    gap = (inputs.old_logprobs - inputs.rollout_logprobs).detach()[mask]
    weights = gap.double().clamp(max=20.0).exp()
    size = gap.abs().sort().values.tolist()
    metrics: Metrics = {
        "policy/sampler_kl": mean_over(kl, mask),
        "policy/sampler_logprob_gap_p50": Percentile.of_sorted(0.5, size),
        "policy/sampler_logprob_gap_p95": Percentile.of_sorted(0.95, size),
        "policy/sampler_logprob_gap_max": Max(max(size, default=0.0)),
    }
    if cap is not None:
        metrics["policy/importance_truncated_frac"] = Mean(float((weights > cap).sum()), float(gap.numel()))
        weights = weights.clamp(max=cap)
    metrics["policy/importance_ess_frac"] = EffectiveShare(
        float(weights.sum()), float(weights.square().sum()), float(gap.numel())
    )
    return metrics
