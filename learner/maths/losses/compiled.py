"""All terms of dvpo's critic loss with their gradient in one pass, in C, where that was built (``critic_kernel.c``).

It computes what :mod:`learner.maths.losses.tail` and Eq 3 and 4 give one by one, at a fraction of the time: on a small
model a tensor operation costs more than its arithmetic.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from learner.maths.kernels import quantile_kernel
from learner.maths.losses import tail
from learner.maths.quantiles.quantiles import midpoint_taus

TERMS = (
    "quantile_huber",
    "risk_huber",
    "lower_cvar",
    "upper_gain",
    "mean_shift",
    "tail_shape",
    "tail_curvature",
    "head_consistency",
)
"""In the order of the C file; Eq 3 to 10."""


@dataclass(frozen=True)
class CriticTerms:
    """Which terms, and in which form. Calibration is "ru", and the reference of the tails' shape "iqr".

    Attributes:
        coef: weight of each of :data:`TERMS`; one that is missing is 0 and is not computed.
        scale: what quantiles and atoms are divided by.
    """

    coef: Mapping[str, float]
    scale: float
    kappa: float
    alpha: float
    beta: float
    risk_eta: float
    risk_direction: tail.Side
    sides: tail.TailSides
    shift_form: tail.ShiftForm
    contract: float
    expand: float
    curvature_form: tail.CurvatureForm
    min_iqr: float


def serves(quantile_values: Tensor, kappa: float) -> bool:
    """Whether :func:`critic_terms` can take these quantiles."""
    return quantile_kernel.serves(quantile_values, kappa)


def critic_terms(
    quantile_values: Tensor, targets: Tensor, terms: CriticTerms, head_share: Tensor | None = None
) -> tuple[Tensor, dict[str, float]]:
    """Weighted sum of all terms, [n], and the sum over the n states of each term that is on.

    Args:
        quantile_values: [n head M] float32, ascending; carries the gradient.
        targets: [n K] ascending, detached here.
        head_share: [n head], factor of each head in all terms but Eq 10, of which the mean over heads is taken; or 1.

    Raises:
        ValueError: quantiles and targets are not of the same states.
    """
    rows, heads, _ = quantile_values.shape
    if targets.dim() != 2 or len(targets) != rows or targets.shape[1] < 1:
        raise ValueError(f"targets {tuple(targets.shape)} do not fit quantile_values {tuple(quantile_values.shape)}")
    ones = torch.ones((), dtype=torch.float64)
    share = (ones if head_share is None else head_share.detach().double()).expand(rows, heads) / heads
    total, sums = _CriticTerms.apply(quantile_values, targets.detach(), terms, share)
    return total, {name: value for name, value in zip(TERMS, sums.tolist(), strict=True) if terms.coef.get(name)}


class _Options(ctypes.Structure):
    """``options`` of the C file."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "heads", "num", "count", "num_low", "num_high")),
        *((name, ctypes.c_int64) for name in ("one_sided", "hinge", "curvature_form")),
        *((name, ctypes.c_double) for name in ("factor", "kappa", "alpha", "beta", "contract", "expand", "min_iqr")),
        ("coef", ctypes.c_double * len(TERMS)),
    ]


def _options(terms: CriticTerms, shape: tuple[int, ...], count: int) -> _Options:
    rows, heads, num = shape
    low, high = (max(1, tail.tail_count_of(num, share)) for share in (terms.alpha, terms.beta))
    coef = [terms.coef.get(name, 0.0) for name in TERMS]
    ratios = [0.0, 0.0]
    if coef[TERMS.index("tail_shape")]:
        ratios = [tail.gaussian_tail_ratio(num, size) for size in (low, high)]
    return _Options(
        rows,
        heads,
        num,
        count,
        low,
        high,
        terms.sides == "one_sided",
        terms.shift_form == "hinge",
        ("asymmetric", "unimodal", "smooth").index(terms.curvature_form),
        1.0 / terms.scale,
        terms.kappa,
        terms.alpha,
        terms.beta,
        terms.contract * ratios[0],
        terms.expand * ratios[1],
        terms.min_iqr,
        (ctypes.c_double * len(TERMS))(*coef),
    )


class _CriticTerms(Function):
    """[row head M] -> [row] and the terms' sums [8]; the gradient is found on the way and kept."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, atoms: Tensor, terms: CriticTerms, share: Tensor) -> tuple[Tensor, Tensor]:
        queries, atoms, share = queries.contiguous(), atoms.to(queries.dtype).contiguous(), share.contiguous()
        taus = midpoint_taus(queries.shape[-1], dtype=torch.float64)
        risk = tail.risk_weights(taus, terms.risk_eta, terms.risk_direction)
        total, grad = queries.new_empty(len(queries)), torch.empty_like(queries)
        sums = torch.empty(len(TERMS), dtype=torch.float64)
        options = _options(terms, queries.shape, atoms.shape[-1])
        quantile_kernel.critic_terms(options, (queries, atoms, share, taus, risk, total, grad, sums))
        ctx.save_for_backward(grad)
        ctx.mark_non_differentiable(sums)
        return total, sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = ctx.saved_tensors
        return grad * upstream[:, None, None], None, None, None
