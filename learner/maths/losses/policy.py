"""Clipped policy losses, the truncated importance weight of a second policy, and their diagnostics.

Every function gives one value per token; sums and denominators are the caller's (:mod:`learner.masking`).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from learner.masking import masked

RatioLevel = Literal["token", "geometric", "sequence"]
"""Of what a ratio is taken: of a token, of all a row's tokens as their geometric mean, or as their product."""

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
    loss, clipped = _clipped_surrogate(ratio, advantages, clip_ratio_low, clip_ratio_high)
    if dual_clip is not None:
        if dual_clip <= 1.0:
            raise ValueError(f"dual_clip must be greater than 1, got {dual_clip}")
        ceiling = -dual_clip * advantages
        over = (advantages < 0) & (loss > ceiling)
        loss = torch.where(over, ceiling, loss)
        clipped = clipped | over
    return ClippedLoss(masked(loss, action_mask), ratio.detach(), clipped & action_mask)


def sequence_clipped_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    action_mask: Tensor,
    clip_ratio_low: float,
    clip_ratio_high: float,
) -> ClippedLoss:
    """GSPO's surrogate with one ratio for a whole response (2507.18071 Eq 5 and 7, per token as in Eq 13 and 14).

    ``s = exp((1 / |y|) sum_t (logp_t - sg logp_old_t))``, ``s_t = sg[s] * exp(logp_t - sg logp_t)`` and
    ``l_t = max(-s_t * A_t, -clip(s_t, 1 - lo, 1 + hi) * A_t)``. Where A is the same in all of a row, the mean over its
    tokens is ``max(-s * A, -clip(s) * A)``, as a value and as a gradient. |y| counts sampled tokens.

    Args:
        logprobs, old_logprobs, advantages, action_mask: as in :func:`clipped_policy_loss`.
    """
    logprobs, advantages = masked(logprobs, action_mask), masked(advantages.detach(), action_mask)
    log_ratio = ratio_logarithm(logprobs.detach(), old_logprobs, action_mask, "geometric")
    ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() * (logprobs - logprobs.detach()).exp()
    loss, clipped = _clipped_surrogate(ratio, advantages, clip_ratio_low, clip_ratio_high)
    shown = torch.where(action_mask, ratio.detach(), torch.ones_like(loss))
    return ClippedLoss(masked(loss, action_mask), shown, clipped & action_mask)


def _clipped_surrogate(ratio: Tensor, advantages: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """``max(-rho * A, -clip(rho, 1 - low, 1 + high) * A)``, and where the bound is what counts; all [batch seq]."""
    plain, cut = -ratio * advantages, -ratio.clamp(1.0 - low, 1.0 + high) * advantages
    return torch.maximum(plain, cut), cut > plain


def clipped_weight_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    action_mask: Tensor,
    clip_ratio_low: float | None,
    clip_ratio_high: float,
) -> ClippedLoss:
    """CISPO's loss, which clips the weight and never the gradient (2506.13585 Eq 4 and 5).

    ``l_t = -sg[clip(rho_t, 1 - lo, 1 + hi)] * A_t * logp_t``: every token keeps a gradient, -A * grad logp times its
    clipped ratio. ``clipped`` says where the ratio was cut.

    Args:
        logprobs, old_logprobs, advantages, action_mask: as in :func:`clipped_policy_loss`.
        clip_ratio_low: lo, or None for no bound below.
    """
    logprobs, advantages = masked(logprobs, action_mask), masked(advantages.detach(), action_mask)
    log_ratio = ratio_logarithm(logprobs.detach(), old_logprobs, action_mask, "token")
    ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    weight = ratio.clamp(0.0 if clip_ratio_low is None else 1.0 - clip_ratio_low, 1.0 + clip_ratio_high)
    return ClippedLoss(masked(-weight * advantages * logprobs, action_mask), ratio, (weight != ratio) & action_mask)


def ratio_logarithm(logprobs: Tensor, other_logprobs: Tensor, action_mask: Tensor, level: RatioLevel) -> Tensor:
    """Logarithm of the ratio of two policies, [batch seq], detached; 0 outside the mask.

    Args:
        logprobs: [batch seq], of the upper policy.
        other_logprobs: [batch seq], of the lower one.
        level: 'token': ``g_t``, the difference at each token; 'sequence': ``sum_t g_t`` of the row, at each of its
            tokens; 'geometric': that divided by the row's number of tokens.
    """
    gap = masked(logprobs.detach(), action_mask) - masked(other_logprobs.detach(), action_mask)
    if level == "token":
        return gap
    total = gap.double().sum(dim=1, keepdim=True)
    if level == "geometric":
        total = total / action_mask.sum(dim=1, keepdim=True).clamp(min=1)
    return masked(total.to(gap.dtype).expand(gap.shape), action_mask)


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
