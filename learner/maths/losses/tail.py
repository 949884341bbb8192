"""Terms that shape the tails of a quantile critic: Eq 4 to 10 of 2512.03847 in our forms.

All functions take ascending quantile functions ``q`` [... M] of one head (leading axes are free: tokens, heads), as
they are or cut by :func:`cut_tails`, and, where they compare, detached atoms ``targets`` [... K] that are *ascending*
too and broadcast against the leading axes. They return one value per leading index. Both are meant to be in units of
the running scale s, so that the terms' weights do not depend on the scale of rewards. Only ``q`` carries a gradient;
targets, VaR anchors, interquartile ranges and references are detached.

Tail index sets: I_lo = {i: tau_i <= alpha} and I_up = {i: tau_i >= 1 - beta}, alpha and beta below 1/2.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from learner.maths.quantiles.quantiles import quantile_at, quantile_mean, spread

Side = Literal["lower", "upper"]
Calibration = Literal["ru", "target_tail"]
TailSides = Literal["two_sided", "one_sided"]
ShiftForm = Literal["squared", "hinge"]
CurvatureForm = Literal["blocks", "asymmetric", "unimodal", "smooth"]
NUM_BLOCKS = 4
"""Blocks of a tail in the form "blocks" of Eq 9; fewer where the tail has fewer quantiles."""


def tail_count_of(num_quantiles: int, share: float) -> int:
    """Number of levels tau_i <= share, 0 included."""
    return math.floor(num_quantiles * share + 0.5 + 1e-9)


def check_tail_share(num_quantiles: int, share: float, need: int, name: str) -> int:
    """Number of quantiles in a tail set.

    Raises:
        ValueError: the share is not in (0, 1/2), or the set has fewer than ``need`` members.
    """
    if not 0.0 < share < 0.5:
        raise ValueError(f"{name} must be in (0, 0.5), got {share}")
    count = tail_count_of(num_quantiles, share)
    if count < need:
        raise ValueError(
            f"{name}={share} holds {count} of {num_quantiles} quantile levels, but at least {need} are needed; "
            f"raise {name} to {(need - 0.5) / num_quantiles:.4g} or use more quantiles"
        )
    return count


class Tails(NamedTuple):
    """What Eq 5 to 9 read of quantile functions, so that all of them together cost one pass backward.

    Attributes:
        law: [... M], detached.
        mean: [...].
        low: [... n], the quantiles of I_lo.
        high: [... n], those of I_up.
    """

    law: Tensor
    mean: Tensor
    low: Tensor
    high: Tensor


def cut_tails(quantile_values: Tensor, alpha: float, beta: float) -> Tails:
    """Cut quantile functions [... M] for both tail shares; a set that would be empty gets one quantile."""
    counts = [max(1, tail_count_of(quantile_values.shape[-1], share)) for share in (alpha, beta)]
    return Tails(quantile_values.detach(), *_Cut.apply(quantile_values, *counts))


class _Cut(Function):
    """[... M] -> mean, first and last entries. Slices by themselves fill a tensor of zeros each on the way back."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, num_low: int, num_high: int) -> tuple[Tensor, Tensor, Tensor]:
        ctx.num = q.shape[-1]
        return q.mean(dim=-1), q[..., :num_low].clone(), q[..., -num_high:].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, mean: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor | None, ...]:
        grad = (mean / ctx.num)[..., None].repeat(*(1 for _ in mean.shape), ctx.num)
        grad[..., : low.shape[-1]] += low
        grad[..., -high.shape[-1] :] += high
        return grad, None, None


def tail(q: Tensor | Tails, share: float, side: Side, need: int = 1) -> Tensor:
    """The quantiles of I_lo or I_up, [... n].

    Raises:
        ValueError: the set has fewer than ``need`` members, or q was cut at another share.
    """
    law = _law(q)
    count = check_tail_share(law.shape[-1], share, need, "tail share")
    if isinstance(q, Tensor):
        return q[..., :count] if side == "lower" else q[..., -count:]
    found = q.low if side == "lower" else q.high
    if found.shape[-1] != count:
        raise ValueError(f"a tail share of {share} holds {count} quantiles, but {found.shape[-1]} were cut")
    return found


def _law(q: Tensor | Tails) -> Tensor:
    return q.detach() if isinstance(q, Tensor) else q.law


def risk_weights(taus: Tensor, eta: float, direction: Side = "lower") -> Tensor:
    """Weights of Eq 4: ``w_i = exp(-eta * tau_i) / mean_l exp(-eta * tau_l)``, [M], mean 1, largest at low levels.

    ``direction="upper"`` reverses them. Being positive they do not move the minimiser of the quantile loss; they only
    spread the gradient differently. Used as ``quantile_huber_loss(..., weights=risk_weights(...))``.
    """
    weights = torch.exp(-eta * (taus if direction == "lower" else 1.0 - taus))
    return weights / weights.mean()


def tail_calibration(
    q: Tensor | Tails,
    targets: Tensor,
    share: float,
    side: Side,
    form: Calibration = "ru",
    sides: TailSides = "two_sided",
) -> Tensor:
    """Eq 5 (``side="lower"``, CVaR calibration) and Eq 6 (``"upper"``, upper-tail gain): squared error of a tail mean.

    ``ru`` (sound, our choice) compares with the Rockafellar-Uryasev form ``T_lo = v - mean_j max(v - Y_j, 0) / alpha``
    with v = sg(q at level alpha), and mirrored above; its minimiser is the CVaR of the law that Y is sampled
    from, whatever the kind of targets. ``target_tail`` (literal, our reading) compares with the mean of the lowest
    (highest) share of the atoms themselves; for point-mass targets its minimiser is the mean.

    Args:
        share: alpha or beta.
        sides: ``one_sided`` penalises only a tail mean below its target, for both tails (biased upward under noise).
    """
    tail_mean = tail(q, share, side).mean(dim=-1)
    targets = targets.detach()
    if form == "target_tail":
        count = max(1, round(share * targets.shape[-1]))
        goal = (targets[..., :count] if side == "lower" else targets[..., -count:]).mean(dim=-1)
    elif side == "lower":
        anchor = quantile_at(_law(q), share)
        goal = anchor - (anchor[..., None] - targets).clamp_(min=0).mean(dim=-1) / share
    else:
        anchor = quantile_at(_law(q), 1.0 - share)
        goal = anchor + (targets - anchor[..., None]).clamp_(min=0).mean(dim=-1) / share
    gap = goal - tail_mean
    return (gap.clamp(min=0) if sides == "one_sided" else gap).square()


def mean_shift(q: Tensor | Tails, targets: Tensor, form: ShiftForm = "squared") -> Tensor:
    """Eq 7: ``squared`` (sound) ``(mean q - mean Y)^2``; ``hinge`` (literal) ``max(0, mean Y - mean q)``.

    Under sampled targets the per-token hinge moves the fixed point upward; the square does not.
    """
    gap = quantile_mean(targets.detach()) - (quantile_mean(q) if isinstance(q, Tensor) else q.mean)
    return gap.clamp(min=0) if form == "hinge" else gap.square()


def tail_shape(
    q: Tensor | Tails,
    lower_reference: Tensor,
    upper_reference: Tensor,
    alpha: float,
    beta: float,
    contract: float = 1.0,
    expand: float = 1.0,
) -> Tensor:
    """Eq 8: ``max(0, var_lo(q) - c_lo * ref_lo) + max(0, c_up * ref_up - var_up(q))``, references detached.

    Contracts the lower tail and expands the upper one. Variances are over the index set and divided by its size, so
    their gradients sum to 0 inside each set: tail means and everything outside the sets stay where they are. At least 2
    quantiles are needed in each set.

    Args:
        lower_reference: [...] (or broadcastable), from :func:`iqr_reference` (sound) or :func:`tail_variance` of the
            targets (literal) or of the old critic.
        upper_reference: the same for the upper tail.
        contract: c_lo. 1 in the literal form.
        expand: c_up. 1 in the literal form.
    """
    lower, upper = tail_variance(q, alpha, "lower"), tail_variance(q, beta, "upper")
    return (lower - contract * lower_reference.detach()).clamp(min=0) + (
        expand * upper_reference.detach() - upper
    ).clamp(min=0)


def tail_variance(q: Tensor | Tails, share: float, side: Side) -> Tensor:
    """Variance of the quantiles of one tail set, divided by n, [... M] -> [...]."""
    return spread(tail(q, share, side, need=2))


def atom_tail_variance(targets: Tensor, share: float, side: Side) -> Tensor:
    """Variance of the lowest or highest share of K ascending atoms, at least one of them; 0 for a point mass."""
    count = max(1, round(share * targets.shape[-1]))
    return spread(targets[..., :count] if side == "lower" else targets[..., -count:])


def iqr_reference(q: Tensor | Tails, share: float, side: Side) -> Tensor:
    """``g * (q75 - q25)^2``, detached, [... M] -> [...]: the tail variance that a Gaussian of this spread would have.

    g is the same ratio of the vector Phi^{-1}(tau) (our choice), so Eq 8 with c = 1 vanishes on Gaussian quantiles.
    """
    ratio = gaussian_tail_ratio(_law(q).shape[-1], tail(q, share, side, need=2).shape[-1])
    return ratio * interquartile_range(q).square()


def interquartile_range(q: Tensor | Tails) -> Tensor:
    """``q75 - q25``, detached, [... M] -> [...]."""
    q = _law(q)
    return quantile_at(q, 0.75) - quantile_at(q, 0.25)


@lru_cache(maxsize=64)
def gaussian_tail_ratio(num_quantiles: int, count: int) -> float:
    """var_lo / (q75 - q25)^2 of Gaussian quantiles; by symmetry the same above."""
    levels = (2 * torch.arange(1, num_quantiles + 1, dtype=torch.float64) - 1) / (2 * num_quantiles)
    gaussian = torch.special.ndtri(levels)
    return float(spread(gaussian[:count]) / interquartile_range(gaussian).square())


def tail_curvature(
    q: Tensor | Tails, alpha: float, beta: float, form: CurvatureForm = "asymmetric", min_iqr: float = 1e-6
) -> Tensor:
    """Eq 9 on ``chi_i = M * (q_{i+1} - 2 q_i + q_{i-1}) / max(sg(q75 - q25), min_iqr)``, triples inside each tail set.

    ``asymmetric`` (our choice): mean max(0, -chi_lo)^2 + mean max(0, -chi_up)^2, a straight lower and a convex upper
    tail. ``unimodal`` (our reading): mean max(0, chi_lo) + mean max(0, -chi_up), a bell. ``smooth``: mean chi^2 of
    both. At least 3 quantiles are needed in each set. 0 for linear q; invariant to q -> a * q + b with a > 0, as long
    as the interquartile range stays above ``min_iqr``; below, the term fades instead of blowing up.

    These three see neighbours that are 1 / M apart, so their gradient on one quantile grows with M^2 while that of Eq 3
    falls with 1 / M: at M = 200 they drown it. ``blocks`` (our choice) is ``asymmetric`` of the means of a few blocks
    of each tail, without the factor M and under Huber's function instead of the square: its gradient on one quantile is
    O(1 / M) and at most that of a straight line, whatever the number of quantiles.
    """
    if form == "blocks":
        return _block_curvature(q, alpha, beta, min_iqr)
    scale = (_law(q).shape[-1] / interquartile_range(q).clamp(min=min_iqr))[..., None]
    low = tail(q, alpha, "lower", need=3).diff(n=2, dim=-1) * scale
    high = tail(q, beta, "upper", need=3).diff(n=2, dim=-1) * scale
    if form == "smooth":
        return low.square().mean(dim=-1) + high.square().mean(dim=-1)
    if form == "unimodal":
        return low.clamp(min=0).mean(dim=-1) + (-high).clamp(min=0).mean(dim=-1)
    return (-low).clamp(min=0).square().mean(dim=-1) + (-high).clamp(min=0).square().mean(dim=-1)


def _block_curvature(q: Tensor | Tails, alpha: float, beta: float, min_iqr: float) -> Tensor:
    """Eq 9 on block means, see :func:`tail_curvature`."""
    width = interquartile_range(q).clamp(min=min_iqr)[..., None]
    total = torch.zeros_like(width[..., 0])
    for share, side in ((alpha, "lower"), (beta, "upper")):
        values = tail(q, share, side, need=3)  # type: ignore[arg-type]
        blocks = values.tensor_split(min(NUM_BLOCKS, values.shape[-1]), dim=-1)
        means = torch.stack([block.mean(dim=-1) for block in blocks], dim=-1)
        bent = (-means.diff(n=2, dim=-1) / width).clamp(min=0)
        total = total + torch.nn.functional.huber_loss(bent, torch.zeros_like(bent), reduction="none").mean(dim=-1)
    return total


def head_consistency(quantile_values: Tensor) -> Tensor:
    """Eq 10: mean over pairs of heads of ``mean_i (q_h,i - q_g,i)^2``, [... head M] -> [...]; 0 for one head.

    Computed as ``2 / (N - 1) * sum_h mean_i (q_h,i - qbar_i)^2``, which is equal (our derivation).
    """
    result: Tensor = _HeadSpread.apply(quantile_values)
    return result


class _HeadSpread(Function):
    """Eq 10; the gradient is the deviation from the mean head, times a number for each token."""

    @staticmethod
    def forward(ctx: Any, q: Tensor) -> Tensor:
        heads = q.shape[-2]
        deviation = q - q.mean(dim=-2, keepdim=True)
        ctx.save_for_backward(deviation)
        ctx.factor = factor = 4.0 / (max(1, heads - 1) * q.shape[-1])
        flat = deviation.flatten(-2)
        spread: Tensor = torch.linalg.vecdot(flat, flat)
        return spread * (factor / 2.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (deviation,) = ctx.saved_tensors
        gradient: Tensor = deviation * (upstream * ctx.factor)[..., None, None]
        return gradient
