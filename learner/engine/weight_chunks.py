"""In which portions weights leave a model: as much as may be gathered at a time, and what belongs together."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from learner.engine.engine import WeightForm

GATHER_NUMEL = 1 << 26
"""Weights that are gathered in one go when they are exported, in numbers."""


def weight_chunks(
    module: nn.Module, form: WeightForm | None = None, trained_only: bool = False
) -> Iterator[list[tuple[str, nn.Parameter]]]:
    """All parameters in their order, as many groups together as :data:`GATHER_NUMEL` allows, or one that is larger.

    Args:
        form: what has to be together; by default each parameter is a group. A group comes where its first member does.
        trained_only: leave out those without gradients.
    """
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in module.named_parameters():
        if trained_only and not parameter.requires_grad:
            continue
        groups.setdefault(name if form is None else form.group_of(name), []).append((name, parameter))
    chunk: list[tuple[str, nn.Parameter]] = []
    size = 0
    for group in groups.values():
        numel = sum(full_numel(parameter) for _, parameter in group)
        if chunk and size + numel > GATHER_NUMEL:
            yield chunk
            chunk, size = [], 0
        chunk += group
        size += numel
    if chunk:
        yield chunk


def shapes_of(module: nn.Module, form: WeightForm | None = None) -> list[tuple[str, torch.dtype, tuple[int, ...]]]:
    """Name, number format and full shape of all weights, in the order in which their portions come."""
    found: list[tuple[str, torch.dtype, tuple[int, ...]]] = []
    for chunk in weight_chunks(module, form):
        shapes = {name: torch.empty(full_shape(p), dtype=p.dtype, device="meta") for name, p in chunk}
        weights = shapes if form is None else form(shapes)
        found += [(name, weight.dtype, tuple(weight.shape)) for name, weight in weights.items()]
    return found


def full_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """Shape of a parameter when gathered."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def full_numel(parameter: nn.Parameter) -> int:
    """Size of a parameter when gathered."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))
