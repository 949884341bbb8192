"""The policy's weights as they leave the learner for engines: in the form of the model's files, buffers included."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from learner.checkpoint.published_form import MergedForm, PublishedForm
from learner.models.policy import PolicyModel
from learner.update.learner import Learner


def published_weights(learner: Learner, in_float32: bool = False) -> Iterator[tuple[str, Tensor]]:
    """Name and full tensor in host memory, on rank 0; nothing elsewhere. Called, and exhausted, by every rank.

    Args:
        in_float32: leave weights unrounded into which adapters are merged, whatever the model's number format.
    """
    form = _form_of(learner, in_float32)
    yield from learner.policy.full_weights(form)
    if learner.world.rank == 0:
        yield from ((name, buffer.to("cpu", copy=True)) for name, buffer in form.buffers().items())


def published_shapes(learner: Learner) -> list[tuple[str, torch.dtype, tuple[int, ...]]]:
    """Name, number format and full shape of what :func:`published_weights` lists, in its order, on every rank."""
    form = _form_of(learner)
    buffers = [(name, buffer.dtype, tuple(buffer.shape)) for name, buffer in form.buffers().items()]
    return [*learner.policy.weight_shapes(form), *buffers]


def published_tensors(learner: Learner) -> Iterator[tuple[str, Tensor]]:
    """What :func:`published_weights` lists, on every rank's device and some at a time. Called by every rank."""
    form = _form_of(learner)
    yield from learner.policy.device_weights(form)
    yield from form.buffers().items()


def _form_of(learner: Learner, in_float32: bool = False) -> PublishedForm | MergedForm:
    policy = learner.policy.module
    assert isinstance(policy, PolicyModel)
    form = PublishedForm(policy)
    if policy.adapters is None:
        return form
    return MergedForm(form, policy.adapters.lora_alpha / policy.adapters.r, in_float32)
