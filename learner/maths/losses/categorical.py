"""Values as classes: what a number is as a law over bins, and the mean of such a law."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def bin_centres(low: float, high: float, num_bins: int, device: torch.device | None = None) -> Tensor:
    """``z_i``, [num_bins] float32, evenly from ``low`` to ``high``."""
    return torch.linspace(low, high, num_bins, dtype=torch.float32, device=device)


def two_hot(values: Tensor, centres: Tensor) -> Tensor:
    """All mass on the two centres around a value, so that their mean is the value, [...] -> [... bin].

    The projection of a point in C51 (1707.06887 Eq 7; "two-hot" in 2403.03950). Values beyond the outer centres are
    those centres. With two bins, at 0 and 1, the cross-entropy to it is the binary one.
    """
    low, step = centres[0], centres[1] - centres[0]
    place = ((values.clamp(float(centres[0]), float(centres[-1])) - low) / step).unsqueeze(-1)
    index = torch.arange(len(centres), dtype=place.dtype, device=place.device)
    return (1.0 - (place - index).abs()).clamp(min=0.0)


def gauss_histogram(values: Tensor, centres: Tensor, sigma_ratio: float) -> Tensor:
    """HL-Gauss (2403.03950): the mass of ``N(y, sigma^2)`` in each bin, over that in all of them, [...] -> [... bin].

    Bins are as wide as centres are apart, and sigma is ``sigma_ratio`` of that (0.75 in the paper). Values beyond the
    outer centres are those centres.
    """
    step = float(centres[1] - centres[0])
    edges = torch.cat([centres - step / 2, centres[-1:] + step / 2])
    inside = values.clamp(float(centres[0]), float(centres[-1])).unsqueeze(-1)
    below = torch.erf((edges - inside) / (math.sqrt(2.0) * sigma_ratio * step))
    mass = below[..., 1:] - below[..., :-1]
    return mass / mass.sum(dim=-1, keepdim=True)
