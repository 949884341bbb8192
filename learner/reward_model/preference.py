"""Losses of preference pairs as functions of the margin D, for reward models and for direct preference training.

For a reward model D is the score of the chosen answer minus that of the rejected one; for direct preference training it
is :func:`dpo_margins`. Every loss is per pair, [n] -> [n], unless said otherwise. sig is the logistic function.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def dpo_margins(
    chosen_logprobs: Tensor,
    rejected_logprobs: Tensor,
    chosen_ref_logprobs: Tensor,
    rejected_ref_logprobs: Tensor,
    beta: float = 0.1,
) -> Tensor:
    """``D = beta * ((log pi_c - log ref_c) - (log pi_r - log ref_r))``, [n] (2305.18290 Eq 7); ref is detached.

    Args:
        chosen_logprobs: [n], summed over the tokens of the chosen answer; carries the gradient, as does the rejected.
        beta: in 1 / nats.
    """
    chosen = chosen_logprobs - chosen_ref_logprobs.detach()
    return beta * (chosen - (rejected_logprobs - rejected_ref_logprobs.detach()))


def bradley_terry_loss(margins: Tensor) -> Tensor:
    """``-log sig(D)`` (Bradley and Terry 1952; as a reward-model loss 2203.02155 Eq 1). On DPO's margins it is DPO."""
    return -logsigmoid(margins)


def dpo_loss(margins: Tensor) -> Tensor:
    """``-log sig(D)`` of :func:`dpo_margins` (2305.18290 Eq 7)."""
    return bradley_terry_loss(margins)


def ropo_loss(margins: Tensor, a: float = 14.0) -> Tensor:
    """``4a / (1 + a)^2 * (-log sig(D)) + 4a^2 / (1 + a)^2 * sig(-D)`` (2404.04102; the constant a is not verified).

    The weight of the gradient in -D, :func:`ropo_gradient_weight`, peaks at 1 and dies away for very negative D, where
    a flipped label is the likelier explanation.

    Args:
        margins: [n], carries the gradient.
        a: > 1; a larger one trusts unlikely pairs less.
    """
    if a <= 1.0:
        raise ValueError(f"a must be greater than 1, got {a}")
    scale = 4.0 * a / (1.0 + a) ** 2
    return scale * bradley_terry_loss(margins) + scale * a * torch.sigmoid(-margins)


def ropo_gradient_weight(margins: Tensor, a: float = 14.0) -> Tensor:
    """``4a / (1 + a)^2 * sig(-D) * (1 + a * sig(D))``, minus the derivative of :func:`ropo_loss` (our derivation)."""
    return 4.0 * a / (1.0 + a) ** 2 * torch.sigmoid(-margins) * (1.0 + a * torch.sigmoid(margins))


def smallest_losses(losses: Tensor, noise_rate: float) -> Tensor:
    """ROPO's filter: true on the ``(1 - noise_rate)`` share of pairs with the smallest loss, [n] bool (2404.04102).

    Rounded to whole pairs, at least one; equal losses are kept in their order. Detached. To be applied each round to
    the losses of the whole data set or of a large batch.
    """
    if not 0.0 <= noise_rate < 1.0:
        raise ValueError(f"noise_rate must be in [0, 1), got {noise_rate}")
    keep = torch.zeros(losses.shape, dtype=torch.bool, device=losses.device)
    if losses.numel():
        count = max(1, round((1.0 - noise_rate) * losses.numel()))
        keep[losses.detach().argsort(stable=True)[:count]] = True
    return keep


def dr_dpo_loss(margins: Tensor, beta_prime: float = 1.0) -> Tensor:
    """``-b' * log mean_n exp(log sig(D_n) / b')``, a scalar over the batch [n] (2407.07880; "Dr.DPO").

    b' -> infinity gives the mean of DPO. The gradient is that of ``sum_n p_n * (-log sig(D_n))`` with p =
    :func:`dr_dpo_weights`; a log of a mean does not split into micro-batches, so use those weights there.

    Args:
        margins: [n], n >= 1; carries the gradient.
    """
    if beta_prime <= 0.0:
        raise ValueError(f"beta_prime must be above 0, got {beta_prime}")
    scaled = logsigmoid(margins) / beta_prime
    top = scaled.max().detach()  # expm1 and log1p: for a large b' the log of a mean near 1 would be lost to rounding
    return -beta_prime * (top + torch.log1p(torch.expm1(scaled - top).mean()))


def dr_dpo_weights(margins: Tensor, beta_prime: float = 1.0) -> Tensor:
    """``p_n = sig(D_n)^(1 / b') / sum``, [n], detached: implausible pairs count less (2407.07880)."""
    return torch.softmax(logsigmoid(margins.detach()) / beta_prime, dim=0)
