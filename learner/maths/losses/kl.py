"""Per-token estimators of KL(policy || reference) from sampled tokens. d = logp_ref - logp throughout."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from learner.masking import masked

KLEstimator = Literal["k1", "k2", "k3"]

MAX_LOG_RATIO = 20.0
"""d is clamped to +-20 before exp in k3 (our choice), so that one impossible token cannot overflow the loss."""


def kl_estimate(
    logprobs: Tensor, reference_logprobs: Tensor, action_mask: Tensor, estimator: KLEstimator = "k3"
) -> Tensor:
    """k1 = -d, k2 = d^2 / 2, k3 = exp(d) - d - 1 (Schulman 2020; k3 is the KL term of 2402.03300 Eq 4).

    k1 and k3 are unbiased as values; as losses, k2 has the gradient of the reverse KL and k3 that of the forward KL in
    expectation.

    Args:
        logprobs: [batch seq], carries the gradient if it has one.
        reference_logprobs: [batch seq], detached here.
        action_mask: [batch seq] bool.

    Returns:
        [batch seq], 0 outside the mask.
    """
    d = masked(reference_logprobs.detach(), action_mask) - masked(logprobs, action_mask)
    if estimator == "k1":
        return -d
    if estimator == "k2":
        return d.square() / 2
    if estimator == "k3":
        d = d.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        return d.exp() - d - 1.0
    raise ValueError(f"unknown KL estimator {estimator!r}; valid: k1, k2, k3")


def penalised_rewards(
    rewards: Tensor, logprobs: Tensor, reference_logprobs: Tensor, action_mask: Tensor, kl_coef: float
) -> Tensor:
    """``r_t - beta * (logp_old - logp_ref)_t`` on action tokens ("k1 in reward", 1909.08593 Eq 2), detached.

    Args:
        rewards: [batch seq]; rewards outside the mask stay as they are.
    """
    return rewards - kl_coef * kl_estimate(logprobs.detach(), reference_logprobs, action_mask, "k1")
