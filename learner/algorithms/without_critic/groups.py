"""Statistics over the trajectories of one prompt. All functions take global columns [n] (see ``apply_globally``)."""

from __future__ import annotations

import torch
from torch import Tensor


def group_index(group_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Index of each row's group in 0 ... g-1, [n] int64, and the groups' sizes, [g] int64."""
    _, index, sizes = torch.unique(group_ids, return_inverse=True, return_counts=True)
    return index, sizes


def group_mean(scores: Tensor, group_ids: Tensor) -> Tensor:
    """Mean score of each row's group, [n], summed in float64."""
    index, sizes = group_index(group_ids)
    wide = scores.double()
    means = torch.zeros(sizes.shape, dtype=wide.dtype, device=wide.device).scatter_add(0, index, wide) / sizes
    return means[index].to(scores.dtype)


def group_std(scores: Tensor, group_ids: Tensor) -> Tensor:
    """Standard deviation (divided by G, our choice) of each row's group, [n]; exactly 0 if its scores are equal."""
    index, sizes = group_index(group_ids)
    wide = scores.double()
    zero = torch.zeros(sizes.shape, dtype=wide.dtype, device=wide.device)
    means = zero.scatter_add(0, index, wide) / sizes
    variance = zero.scatter_add(0, index, (wide - means[index]).square()) / sizes
    std = torch.where(constant_groups(scores, group_ids), torch.zeros_like(wide), variance[index].sqrt())
    return std.to(scores.dtype)


def constant_groups(scores: Tensor, group_ids: Tensor) -> Tensor:
    """Whether all scores of the row's group are equal, [n] bool."""
    index, sizes = group_index(group_ids)
    empty = scores.new_zeros(sizes.shape)
    low = empty.scatter_reduce(0, index, scores, "amin", include_self=False)
    high = empty.scatter_reduce(0, index, scores, "amax", include_self=False)
    return (low == high)[index]


def z_scored_advantages(scores: Tensor, group_ids: Tensor, eps: float = 1e-6) -> Tensor:
    """``A_i = (r_i - mean_g) / (std_g + eps)`` (2402.03300), [n]; exactly 0 in a group whose scores are all equal."""
    advantages = (scores - group_mean(scores, group_ids)) / (group_std(scores, group_ids) + eps)
    return torch.where(constant_groups(scores, group_ids), torch.zeros_like(advantages), advantages)


def known_spread(scores: Tensor, score_variances: Tensor, group_ids: Tensor) -> Tensor:
    """``sqrt(var_g / (var_g + mean_g v_i))``, [n]: how much of a group's spread its estimated scores have (ours).

    A score that is an estimate, with variance v, spreads less than the true ones do, by the law of total variance:
    ``var(true) = var(estimates) + mean v``. Divided by the spread of estimates alone, a group of which next to nothing
    is known would weigh as much as one of which all is; a z-score times this is divided by the spread of true scores.
    1 where all variances are 0.
    """
    known = group_std(scores, group_ids).double().square()
    unknown = group_mean(score_variances.double(), group_ids)
    share = torch.where(unknown > 0.0, known / (known + unknown), torch.ones_like(known))
    return share.sqrt().to(scores.dtype)


def group_quantile(scores: Tensor, group_ids: Tensor, level: float) -> Tensor:
    """Empirical quantile of each row's group, [n]: its ceil(level * G)-th smallest score, one of the scores itself.

    Not interpolated, so that in a group of 0/1 rewards it is 0 or 1 and one of the two outcomes gets no advantage.

    Args:
        level: in (0, 1].
    """
    index, sizes = group_index(group_ids)
    order = scores.argsort(stable=True)
    order = order[index[order].argsort(stable=True)]  # by group, and ascending inside each
    rank = (level * sizes.double() - 1e-9).ceil().long().clamp(min=1) - 1
    first = sizes.cumsum(0) - sizes
    return scores[order][first + rank][index]
