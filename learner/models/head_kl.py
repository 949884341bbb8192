"""KL divergence between two next-token laws under one LM head, without a [tokens vocabulary] tensor that stays."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from learner.maths.logprobs import CHUNK_ELEMENTS


def head_kl(
    hidden: Tensor, reference: Tensor, weight: Tensor, bias: Tensor | None = None, chunk_tokens: int | None = None
) -> Tensor:
    """``KL(softmax(W h_ref + b) || softmax(W h + b))`` of each state, in nats (``kl_ref``; our reading).

    Works through chunks of tokens and recomputes their logits in the backward pass, as :mod:`learner.maths.logprobs`
    does.

    Args:
        hidden: [n dim]; the only argument that gets a gradient.
        reference: [n dim], hidden states of the frozen model, detached.
        weight: [vocabulary dim] of the LM head, detached.
        bias: [vocabulary] or None, detached.
        chunk_tokens: tokens per chunk; default by :data:`learner.maths.logprobs.CHUNK_ELEMENTS`.

    Returns:
        [n], in the dtype of ``hidden``.
    """
    chunk = chunk_tokens or max(1, CHUNK_ELEMENTS // weight.shape[0])
    kl: Tensor = _HeadKL.apply(hidden, reference.detach(), weight.detach(), bias, chunk)
    return kl


class _HeadKL(Function):
    """See :func:`head_kl`. With z = W h + b: d KL / d z = p - p_ref."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, reference: Tensor, weight: Tensor, bias: Tensor | None, chunk: int) -> Tensor:
        ctx.save_for_backward(hidden, reference, weight, bias)
        ctx.chunk = chunk
        parts = []
        for state, frozen in zip(hidden.split(chunk), reference.split(chunk), strict=True):
            logp, logp_ref = (linear(x, weight, bias).log_softmax(dim=-1) for x in (state, frozen))
            parts.append((logp_ref.exp() * (logp_ref - logp)).sum(dim=-1))
        return torch.cat(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden, reference, weight, bias = ctx.saved_tensors
        grad = torch.empty_like(hidden)
        for start in range(0, hidden.shape[0], ctx.chunk):
            part = slice(start, start + ctx.chunk)
            p, p_ref = (linear(x[part], weight, bias).softmax(dim=-1) for x in (hidden, reference))
            grad[part] = (upstream[part, None] * (p - p_ref)) @ weight
        return grad, None, None, None, None
