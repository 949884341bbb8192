"""Masked sums, means and whitening. Every denominator is explicit; nothing at a masked position can leak.

Masking is done with ``torch.where`` and never by multiplication, so a NaN or an infinity at a masked position neither
reaches a sum nor, through ``0 * inf``, a gradient.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

WhitenMode = Literal["none", "std", "scale", "mad"]
"""'std': (x - mean) / std; 'scale': x / root mean square; 'mad': (x - median) / (1.4826 * MAD); 'none': x."""

MAD_TO_STD = 1.4826022185056018
"""Standard deviation over median absolute deviation of a normal law, 1 / Phi^{-1}(3/4)."""


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """``values`` where ``mask`` is true, exactly 0 (with exactly 0 gradient) elsewhere.

    Args:
        values: [... extra], any floating dtype.
        mask: [...] bool; further trailing axes of ``values`` are masked as a whole.
    """
    mask = mask.reshape(mask.shape + (1,) * (values.dim() - mask.dim()))
    return torch.where(mask, values, torch.zeros((), dtype=values.dtype, device=values.device))


def masked_sum(values: Tensor, mask: Tensor) -> Tensor:
    """Scalar sum of the values at true positions."""
    return masked(values, mask).sum()


def token_mean(values: Tensor, mask: Tensor, num_tokens: float) -> Tensor:
    """``sum(m * x) / max(1, num_tokens)`` with the *global* number of tokens (our choice).

    Args:
        values: [batch seq] of this micro-batch.
        mask: [batch seq] bool.
        num_tokens: number of action tokens of the whole mini-batch over all ranks, so that the sum of this function
            over micro-batches and ranks is the mean over the whole mini-batch however it was split.
    """
    return masked_sum(values, mask) / max(1.0, float(num_tokens))


def sequence_mean(values: Tensor, mask: Tensor, num_sequences: float) -> Tensor:
    """``sum_i (1 / |o_i|) sum_t m_it x_it / max(1, num_sequences)``: each trajectory weighs the same (2402.03300).

    Rows without a true position add 0.
    """
    lengths = mask.sum(dim=1).clamp(min=1).to(values.dtype)
    return (masked(values, mask).sum(dim=1) / lengths).sum() / max(1.0, float(num_sequences))


def location_scale(values: Tensor, mode: WhitenMode) -> tuple[Tensor, Tensor]:
    """What :func:`whiten` subtracts and divides by, as two scalars of the dtype of ``values``.

    Args:
        values: [n], the whole population. Moments are taken in float64 and divided by n. Empty gives (0, 1).
    """
    zero, one = values.new_zeros(()), values.new_ones(())
    if mode == "none" or values.numel() == 0:
        return zero, one
    wide = values.double()
    if mode == "std":
        return wide.mean().to(values.dtype), wide.std(correction=0).to(values.dtype)
    if mode == "scale":
        return zero, wide.square().mean().sqrt().to(values.dtype)
    if mode == "mad":
        center = _median(wide)
        return center.to(values.dtype), (MAD_TO_STD * _median((wide - center).abs())).to(values.dtype)
    raise ValueError(f"unknown whitening mode {mode!r}; valid: none, std, scale, mad")


def whiten(
    values: Tensor,
    mask: Tensor,
    mode: WhitenMode = "std",
    population: Tensor | None = None,
    eps: float = 1e-8,
) -> Tensor:
    """``(x - location) / (scale + eps)`` at true positions, 0 elsewhere; detached.

    Args:
        values: [batch seq].
        mask: [batch seq] bool.
        mode: see :data:`WhitenMode`. ``mad`` falls to ``std`` when more than half of the values are equal, because
            their median absolute deviation is then 0 and says nothing of the scale.
        population: [n], the masked values of all ranks; default: those of this tensor.
        eps: added to the scale.
    """
    values = masked(values.detach(), mask)
    if mode == "none":
        return values
    everything = values[mask] if population is None else population.detach()
    location, scale = location_scale(everything, mode)
    if mode == "mad" and everything.numel() and float(scale) == 0.0:
        location, scale = location_scale(everything, "std")
    return masked((values - location) / (scale + eps), mask)


def _median(values: Tensor) -> Tensor:
    """Median of [n], the mean of the two middle ones when n is even (``torch.median`` takes the lower)."""
    ordered = values.sort().values
    n = ordered.numel()
    return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
