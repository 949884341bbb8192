"""Clipped policy losses, the truncated importance weight of a second policy, and their diagnostics.

Every function gives one value per token; sums and denominators are the caller's (:mod:`learner.masking`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from learner.masking import masked

MAX_LOG_RATIO = 20.0
"""Log-ratios are clamped to +-20 before exp (our choice): past e^20 the loss would overflow, and the gradient of such a
token is 0."""


class ClippedLoss(NamedTuple):
    """Per-token results of :func:`clipped_policy_loss`, each [batch seq].

    Attributes:
        loss: to be minimised; carries the gradient; 0 outside the mask.
        ratio: detached; 1 outside the mask.
        clipped: bool, the token's gradient was cut by a clip bound; false outside the mask.
    """

    loss: Tensor
    ratio: Tensor
    clipped: Tensor


def clipped_policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    action_mask: Tensor,
    clip_ratio_low: float,
    clip_ratio_high: float,
    dual_clip: float | None = None,
) -> ClippedLoss:
    """PPO's clipped surrogate (1707.06347 Eq 7), with separate bounds (2503.14476) and dual clip (1912.09729 Eq 5).

    ``rho = exp(logp - sg logp_old)``; ``l = max(-rho * A, -clip(rho, 1 - lo, 1 + hi) * A)``; where A < 0,
    ``l = min(l, -c * A)``.

    Args:
        logprobs: [batch seq], carries the gradient; anything outside the mask is ignored, NaN included.
        old_logprobs: [batch seq] of the proximal policy, detached here. Equal to ``logprobs`` it gives rho = 1 and the
            gradient -A * grad logp, so a caller with one optimiser step per batch may pass ``logprobs.detach()``.
        advantages: [batch seq], detached here.
        action_mask: [batch seq] bool.
        clip_ratio_low: lo, in [0, 1].
        clip_ratio_high: hi, >= 0.
        dual_clip: c > 1, or None.
    """
    advantages = masked(advantages.detach(), action_mask)
    log_ratio = masked(logprobs, action_mask) - masked(old_logprobs.detach(), action_mask)
    ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    bounded = ratio.clamp(1.0 - clip_ratio_low, 1.0 + clip_ratio_high)
    plain, cut = -ratio * advantages, -bounded * advantages
    loss = torch.maximum(plain, cut)
    clipped = cut > plain
    if dual_clip is not None:
        if dual_clip <= 1.0:
            raise ValueError(f"dual_clip must be greater than 1, got {dual_clip}")
        ceiling = -dual_clip * advantages
        over = (advantages < 0) & (loss > ceiling)
        loss = torch.where(over, ceiling, loss)
        clipped = clipped | over
    return ClippedLoss(masked(loss, action_mask), ratio.detach(), clipped & action_mask)


def truncated_importance_weights(
    old_logprobs: Tensor, rollout_logprobs: Tensor, action_mask: Tensor, cap: float
) -> Tensor:
    """``min(exp(logp_old - logp_rollout), cap)`` per token, detached; 1 outside the mask.

    The sampler and the learner compute the same policy with different kernels, and with ``max_staleness`` > 0 different
    versions of it. Weighting the clipped loss by their truncated ratio makes the gradient that of the learner's policy
    up to the truncation (truncated importance sampling, Ionides 2008; per token and outside the clip: our choice).
    """
    if cap <= 0.0:
        raise ValueError(f"importance cap must be > 0, got {cap}")
    gap = masked((old_logprobs - rollout_logprobs).detach(), action_mask)
    return gap.clamp(max=MAX_LOG_RATIO).exp().clamp(max=cap)
