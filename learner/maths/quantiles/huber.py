"""The exact quantile Huber loss (Eq 3 of 2512.03847) in O((M + K) log(M + K)) per row, with an analytic gradient.

Public names are re-exported by :mod:`learner.maths.quantiles.quantiles`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from learner.maths.kernels import quantile_kernel
from learner.maths.quantiles.ordering import ascending_order

_CPU_CHUNK = 1 << 15
_GPU_CHUNK = 1 << 25
"""Query points that are worked on at a time; on a CPU a chunk's dozen temporaries should stay in a core's cache."""
_FIELD_BITS = 21
"""Room for one of the three counts of atoms that share an int64."""


def quantile_huber_loss(
    quantile_values: Tensor,
    targets: Tensor,
    taus: Tensor,
    kappa: float,
    weights: Tensor | None = None,
    *,
    targets_sorted: bool = False,
) -> Tensor:
    """Eq 3 (2512.03847, after 1710.10044 Eq 10; our form divides by kappa): one value per leading index.

    ``mean_i w_i mean_j |tau_i - 1{Y_j < q_i}| * H(Y_j - q_i) / kappa`` with H(u) = u^2/2 inside [-kappa, kappa] and
    kappa * (|u| - kappa/2) outside; kappa = 0 is the pinball loss exactly. With ``weights`` it is Eq 4.

    Args:
        quantile_values: [... M], in any order.
        targets: [... K] atoms, detached here. Leading axes broadcast; an axis that only ``quantile_values`` has
            (heads: q [token head M], Y [token 1 K]) shares one sort and one set of prefix sums.
        taus: [M].
        kappa: Huber threshold, >= 0, in the units of the values.
        weights: [M] or broadcastable to ``quantile_values``; not normalised here.
        targets_sorted: the atoms are known to be ascending.

    Returns:
        [...], the leading shape of ``quantile_values``.
    """
    levels = quantile_huber_per_level(quantile_values, targets, taus, kappa, targets_sorted=targets_sorted)
    return (levels if weights is None else levels * weights).mean(dim=-1)


def quantile_huber_per_level(
    quantile_values: Tensor, targets: Tensor, taus: Tensor, kappa: float, *, targets_sorted: bool = False
) -> Tensor:
    """:func:`quantile_huber_loss` before the mean over levels: [... M], each the mean over the K atoms.

    Exact in O((M + K) log(M + K)) time and O(M + K) memory per row, with an analytic gradient (our
    derivation).
    """
    if kappa < 0.0:
        raise ValueError(f"kappa must be >= 0, got {kappa}")
    if targets.shape[-1] < 1:
        raise ValueError("targets need at least one atom in their last axis")
    taus = taus.to(quantile_values)
    if taus.shape != quantile_values.shape[-1:]:
        raise ValueError(f"taus {tuple(taus.shape)} do not fit quantile_values {tuple(quantile_values.shape)}")
    lead = quantile_values.shape[:-1]
    atoms = targets.detach().to(quantile_values.dtype)
    atoms = atoms.reshape((1,) * (len(lead) + 1 - atoms.dim()) + atoms.shape)
    if atoms.dim() != len(lead) + 1 or any(a not in (1, b) for a, b in zip(atoms.shape, lead, strict=False)):
        raise ValueError(f"targets {tuple(targets.shape)} do not broadcast to quantile_values {tuple(lead)} + [M]")
    own = [axis for axis in range(len(lead)) if atoms.shape[axis] == lead[axis]]
    shared = [axis for axis in range(len(lead)) if axis not in own]  # axes over which one set of atoms serves
    order = [*own, *shared, len(lead)]
    queries = quantile_values.permute(order)
    rows = math.prod(lead[axis] for axis in own)
    result: Tensor = _QuantileHuber.apply(
        queries.reshape(rows, math.prod(lead[axis] for axis in shared), taus.shape[0]),
        atoms.reshape(rows, atoms.shape[-1]),
        taus,
        float(kappa),
        targets_sorted,
    )
    inverse = sorted(range(len(order)), key=order.__getitem__)
    return result.reshape(queries.shape).permute(inverse)


class _QuantileHuber(Function):
    """[row share M] queries against [row K] atoms -> [row share M]; the gradient is found on the way and kept."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, atoms: Tensor, taus: Tensor, kappa: float, targets_sorted: bool) -> Tensor:
        if quantile_kernel.serves(queries, kappa) and quantile_kernel.serves(atoms, kappa):
            atoms = atoms if targets_sorted else atoms.sort(dim=-1).values
            loss, grad = quantile_kernel.huber(queries, atoms, taus, kappa)
        else:
            loss, grad = _in_chunks(queries, atoms, taus, kappa, targets_sorted)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(grad)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = ctx.saved_tensors
        return grad * upstream, None, None, None, None


def _in_chunks(
    queries: Tensor, atoms: Tensor, taus: Tensor, kappa: float, targets_sorted: bool
) -> tuple[Tensor, Tensor]:
    """Loss and gradient by PyTorch's operations, on any device and in any precision."""
    rows, share, num = queries.shape
    count = share * num
    loss, grad = torch.empty_like(queries), torch.empty_like(queries)
    step = max(1, (_GPU_CHUNK if queries.is_cuda else _CPU_CHUNK) // max(1, count + atoms.shape[-1]))
    levels = taus.double().repeat(share)
    for start in range(0, rows, step):
        part = slice(start, start + step)
        table = _prefix_sums(atoms[part], targets_sorted)
        q = queries[part].reshape(-1, count).double() - table.center
        found = (_huber if kappa > 0.0 else _pinball)(q, table, levels, kappa)
        for result, values in zip((loss, grad), found, strict=True):
            result[part] = values.view(-1, share, num)
    return loss, grad


class _PrefixSums:
    """Sorted atoms [row K] less their mean, and the prefix sums [row K + 1] of them and of their squares.

    The differences of prefix sums cancel: by far (an offset of 500 leaves no digit of float32) without centring, and
    still by 1e-5 under heavy tails with it. So a chunk is centred *and* worked in float64, at 1.15 times the time.
    """

    __slots__ = ("atoms", "center", "dtype", "first", "second")

    def __init__(self, atoms: Tensor, center: Tensor, dtype: torch.dtype) -> None:
        self.atoms, self.center, self.dtype = atoms, center, dtype
        self.first = torch.nn.functional.pad(atoms.cumsum(-1), (1, 0))
        self.second = torch.nn.functional.pad(atoms.square().cumsum(-1), (1, 0))


def _prefix_sums(atoms: Tensor, targets_sorted: bool) -> _PrefixSums:
    if not targets_sorted:
        atoms = atoms.sort(dim=-1).values
    wide = atoms.double()
    center = wide.mean(dim=-1, keepdim=True)
    return _PrefixSums((wide - center).contiguous(), center, torch.promote_types(atoms.dtype, torch.float32))


def _places(q: Tensor, atoms: Tensor, k: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Atoms below q - k, below q and below q + k for each query [row n], by one sort of all breakpoints and queries.

    A binary search for each of the three goes through branches that no processor predicts, and takes three times as
    long. Ties do not matter for kappa > 0, where the loss is C1: an atom on the wrong side of a breakpoint by d changes
    the gradient by d / kappa of its share 1 / K. So on a CPU the sort is of float32 if that is below 1e-5.
    """
    count, num = atoms.shape[-1], q.shape[-1]
    keys = torch.cat([atoms + k, atoms, atoms - k, q], dim=-1)
    if dtype == torch.float32 and keys.device.type == "cpu" and keys.numel():
        low, high = (float(end) for end in keys.aminmax())
        if max(-low, high) * 2.0**-24 <= 1e-5 * k * count:
            keys = keys.float()
    order = ascending_order(keys)
    ones = torch.ones(count, dtype=torch.long, device=q.device)
    steps = torch.cat([ones, ones << _FIELD_BITS, ones << 2 * _FIELD_BITS, ones.new_zeros(num)])
    passed = steps.expand_as(order).gather(-1, order).cumsum(dim=-1)
    passed = torch.empty_like(order).scatter_(-1, order, passed)[:, 3 * count :]
    field = (1 << _FIELD_BITS) - 1
    return passed & field, (passed >> _FIELD_BITS) & field, passed >> 2 * _FIELD_BITS


def _huber(q: Tensor, table: _PrefixSums, tau: Tensor, k: float) -> tuple[Tensor, Tensor]:
    """Loss and gradient of each query [row n] for kappa > 0."""
    count = table.atoms.shape[-1]
    ia, ib, ic = _places(q, table.atoms, k, table.dtype)
    a1, b1, c1 = (table.first.gather(-1, i) for i in (ia, ib, ic))
    a2, b2, c2 = (table.second.gather(-1, i) for i in (ia, ib, ic))
    a, b, c = ia.to(q.dtype), ib.to(q.dtype), ic.to(q.dtype)
    n_left, s_left = b - a, b1 - a1
    n_right, s_right = c - b, c1 - b1
    total = table.first[:, -1:]
    slope_left, slope_right = n_left * q - s_left, n_right * q - s_right  # of the near atoms, times kappa
    rest = count - c
    far_left = k * (a * (q - k / 2) - a1)
    near_left = 0.5 * (b2 - a2 + q * (slope_left - s_left))
    near_right = 0.5 * (c2 - b2 + q * (slope_right - s_right))
    far_right = k * (total - c1 - rest * (q + k / 2))
    above, below = tau / (k * count), (1 - tau) / (k * count)
    loss = below * (far_left + near_left) + above * (near_right + far_right)
    return loss.clamp_(min=0), below * (slope_left + k * a) + above * (slope_right - k * rest)


def _pinball(q: Tensor, table: _PrefixSums, tau: Tensor, _: float) -> tuple[Tensor, Tensor]:
    """Loss and gradient of each query [row n] for kappa = 0. An atom that equals the query adds 0 to the gradient."""
    count = table.atoms.shape[-1]
    ib = torch.searchsorted(table.atoms, q)
    ic = torch.searchsorted(table.atoms, q, right=True)
    b1, b, c = table.first.gather(-1, ib), ib.to(q.dtype), ic.to(q.dtype)
    total = table.first[:, -1:]
    loss = ((1 - tau) * (b * q - b1) + tau * (total - b1 - (count - b) * q)) / count
    return loss.clamp_(min=0), ((1 - tau) * b - tau * (count - c)) / count
