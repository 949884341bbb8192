"""Log-probabilities and entropies of tokens, without ever keeping a [tokens vocabulary] float32 tensor.

This file holds the one shift of the code base: a causal model's output at position t - 1 belongs to token t
(:func:`align_to_tokens`, and :func:`states_of_actions`, which is the same shift restricted to sampled tokens).

Log-probabilities are those of the distribution that was sampled from, softmax(logits / temperature), because the
sampler reports those and the ratio of learner to sampler must be of one distribution. Both functions work through
chunks of tokens, keep only the log-normaliser of each token, and recompute the chunk's logits in the backward pass
(the chunk is sized so that its logits take about 64 MiB).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = 1 << 24
"""Elements of the largest float32 block of logits that is held at a time."""


class TokenLogprobs(NamedTuple):
    """Log-probability and entropy (nats) of each token's distribution, float32, 0 where not asked for."""

    logprobs: Tensor
    entropy: Tensor


def align_to_tokens(outputs: Tensor) -> Tensor:
    """Shift a causal model's outputs to the tokens they speak of: entry t becomes the output at t - 1, entry 0 is 0.

    Args:
        outputs: [batch seq ...], hidden states, logits or values as the model returns them.
    """
    return torch.cat([torch.zeros_like(outputs[:, :1]), outputs[:, :-1]], dim=1)


def states_of_actions(outputs: Tensor, action_mask: Tensor) -> Tensor:
    """``align_to_tokens(outputs)[action_mask]`` without the copy: [n ...], in row-major order.

    Raises:
        ValueError: the first token of a row is an action; no state comes before it.
    """
    if bool(action_mask[:, 0].any()):
        raise ValueError("action_mask is true at position 0, where there is no state before the token")
    return outputs[:, :-1][action_mask[:, 1:]]


def scatter_to_tokens(values: Tensor, action_mask: Tensor) -> Tensor:
    """Put [n ...] values of sampled tokens back to [batch seq ...]; 0 elsewhere. Inverse of ``x[action_mask]``."""
    placed = values.new_zeros((action_mask.numel(), *values.shape[1:]))
    rows = action_mask.reshape(-1).nonzero().squeeze(-1)
    whole: Tensor = placed.index_copy(0, rows, values).unflatten(0, action_mask.shape)
    return whole


def token_logprobs(
    hidden: Tensor,
    weight: Tensor,
    token_ids: Tensor,
    action_mask: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    with_entropy: bool = True,
    chunk_tokens: int | None = None,
) -> TokenLogprobs:
    """Log-probabilities and entropies of sampled tokens from the hidden states before the LM head.

    Args:
        hidden: [batch seq dim], the last hidden states, unshifted.
        weight: [vocabulary dim] of the LM head (or of the tied embedding).
        token_ids: [batch seq] int64.
        action_mask: [batch seq] bool; only these tokens are computed.
        bias: [vocabulary] or None.
        temperature: of the distribution sampled from, > 0.
        with_entropy: False leaves ``entropy`` 0 and saves its part of the work.
        chunk_tokens: tokens per chunk; default by :data:`CHUNK_ELEMENTS`.

    Returns:
        two tensors [batch seq], aligned to tokens; gradients flow to ``hidden``, ``weight`` and ``bias``.
    """
    states = states_of_actions(hidden, action_mask)
    flat = head_logprobs(
        states,
        weight,
        token_ids[action_mask],
        bias=bias,
        temperature=temperature,
        with_entropy=with_entropy,
        chunk_tokens=chunk_tokens,
    )
    return TokenLogprobs(*(scatter_to_tokens(x, action_mask) for x in flat))


def head_logprobs(
    states: Tensor,
    weight: Tensor,
    ids: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float = 1.0,
    with_entropy: bool = True,
    chunk_tokens: int | None = None,
) -> TokenLogprobs:
    """:func:`token_logprobs` of n tokens ``ids`` [n] from the states before them [n dim]: two tensors [n]."""
    _check_temperature(temperature)
    chunk = chunk_tokens or max(1, CHUNK_ELEMENTS // weight.shape[0])
    return TokenLogprobs(*_HeadLogprobs.apply(states, weight, bias, ids, temperature, with_entropy, chunk))


def token_logprobs_from_logits(
    logits: Tensor,
    token_ids: Tensor,
    action_mask: Tensor,
    *,
    temperature: float = 1.0,
    with_entropy: bool = True,
    chunk_tokens: int | None = None,
) -> TokenLogprobs:
    """The same from logits [batch seq vocabulary] of any floating dtype, unshifted; no float32 copy of them is made."""
    flat = logit_logprobs(
        states_of_actions(logits, action_mask),
        token_ids[action_mask],
        temperature=temperature,
        with_entropy=with_entropy,
        chunk_tokens=chunk_tokens,
    )
    return TokenLogprobs(*(scatter_to_tokens(x, action_mask) for x in flat))


def logit_logprobs(
    logits: Tensor,
    ids: Tensor,
    *,
    temperature: float = 1.0,
    with_entropy: bool = True,
    chunk_tokens: int | None = None,
) -> TokenLogprobs:
    """:func:`token_logprobs_from_logits` of n tokens ``ids`` [n] from the logits of each [n vocabulary]."""
    _check_temperature(temperature)
    chunk = chunk_tokens or max(1, CHUNK_ELEMENTS // logits.shape[-1])
    return TokenLogprobs(*_LogitLogprobs.apply(logits, ids, temperature, with_entropy, chunk))


def _check_temperature(temperature: float) -> None:
    if not temperature > 0.0:
        raise ValueError(f"temperature must be > 0 for training log-probabilities, got {temperature}")


def _chunk_forward(scaled: Tensor, ids: Tensor, with_entropy: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Log-normaliser, log-probability and entropy [n] of ``scaled`` logits [n vocabulary] (float32 or float64)."""
    normaliser = torch.logsumexp(scaled, dim=-1)
    logprobs = scaled.gather(-1, ids[:, None]).squeeze(-1) - normaliser
    if not with_entropy:
        return normaliser, logprobs, torch.zeros_like(normaliser)
    logp = scaled - normaliser[:, None]
    # a logit of -inf (a token that cannot be sampled) has probability 0 and adds 0 to the entropy
    entropy = -(logp.exp() * logp.clamp(min=torch.finfo(logp.dtype).min)).sum(-1)
    return normaliser, logprobs, entropy


def _chunk_backward(
    scaled: Tensor, ids: Tensor, normaliser: Tensor, entropy: Tensor, up_logprobs: Tensor, up_entropy: Tensor | None
) -> Tensor:
    """Gradient for ``scaled``: d logp / dz = onehot - p; d entropy / dz = -p * (log p + entropy)."""
    logp = scaled - normaliser[:, None]
    p = logp.exp()
    factor = -up_logprobs[:, None]
    if up_entropy is None:
        grad = p * factor
    else:
        logp = logp.clamp(min=torch.finfo(logp.dtype).min)
        grad = p * (factor - up_entropy[:, None] * (logp + entropy[:, None]))
    return grad.scatter_add_(-1, ids[:, None], up_logprobs[:, None])


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


class _HeadLogprobs(Function):
    """Log-probabilities from hidden states [n dim] and an LM head."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ids: Tensor,
        temperature: float,
        with_entropy: bool,
        chunk: int,
    ) -> tuple[Tensor, Tensor]:
        ctx.temperature, ctx.with_entropy, ctx.chunk = temperature, with_entropy, chunk
        parts = [
            _chunk_forward(_head(h, weight, bias, temperature), i, with_entropy)
            for h, i in zip(hidden.split(chunk), ids.split(chunk), strict=True)
        ]
        normaliser, logprobs, entropy = (torch.cat(column) for column in zip(*parts, strict=True))
        ctx.save_for_backward(hidden, weight, bias, ids, normaliser, entropy)
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, up_logprobs: Tensor, up_entropy: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, ids, normaliser, entropy = ctx.saved_tensors
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=_wide(weight).dtype) if need_weight else None
        grad_bias = torch.zeros_like(bias, dtype=_wide(bias).dtype) if need_bias else None
        for start in range(0, hidden.shape[0], ctx.chunk):
            part = slice(start, start + ctx.chunk)
            up = _wide(up_entropy[part]) if ctx.with_entropy else None
            scaled = _head(hidden[part], weight, bias, ctx.temperature)
            grad = _chunk_backward(scaled, ids[part], normaliser[part], entropy[part], _wide(up_logprobs[part]), up)
            grad = (grad / ctx.temperature).to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = grad @ weight
            if grad_weight is not None:
                grad_weight += grad.T @ hidden[part]
            if grad_bias is not None:
                grad_bias += grad.sum(0)
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(bias.dtype),
            *(None,) * 4,
        )


class _LogitLogprobs(Function):
    """Log-probabilities from logits [n vocabulary]."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, ids: Tensor, temperature: float, with_entropy: bool, chunk: int
    ) -> tuple[Tensor, Tensor]:
        ctx.temperature, ctx.with_entropy, ctx.chunk = temperature, with_entropy, chunk
        parts = [
            _chunk_forward(_wide(z) / temperature, i, with_entropy)
            for z, i in zip(logits.split(chunk), ids.split(chunk), strict=True)
        ]
        normaliser, logprobs, entropy = (torch.cat(column) for column in zip(*parts, strict=True))
        ctx.save_for_backward(logits, ids, normaliser, entropy)
        return logprobs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, up_logprobs: Tensor, up_entropy: Tensor) -> tuple[Tensor | None, ...]:
        logits, ids, normaliser, entropy = ctx.saved_tensors
        grad_logits = torch.empty_like(logits)
        for start in range(0, logits.shape[0], ctx.chunk):
            part = slice(start, start + ctx.chunk)
            up = _wide(up_entropy[part]) if ctx.with_entropy else None
            scaled = _wide(logits[part]) / ctx.temperature
            grad = _chunk_backward(scaled, ids[part], normaliser[part], entropy[part], _wide(up_logprobs[part]), up)
            grad_logits[part] = (grad / ctx.temperature).to(logits.dtype)
        return grad_logits, None, None, None, None


def _head(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    """Logits over temperature [n vocabulary] in float32 (float64 stays)."""
    logits = torch.nn.functional.linear(hidden, weight, bias)
    return _wide(logits) / temperature
