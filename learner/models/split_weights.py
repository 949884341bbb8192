"""Models whose weights are not where they are used: split over ranks as they are loaded, or in host memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import nn
from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config

Handle = Callable[[Sequence[Any]], None]
"""Does something to the parameters that one module owns."""


class _Settings:
    """DeepSpeed's settings in the form in which transformers looks for them."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = dict(config)

    def is_zero3(self) -> bool:
        """Asked for by transformers."""
        return True


@contextmanager
def split_when_loaded(settings: Mapping[str, Any] | None) -> Iterator[None]:
    """What transformers loads in the block is split over the ranks weight by weight; no rank ever has all of it.

    Args:
        settings: of DeepSpeed, with ZeRO stage 3; None loads as usual.
    """
    if settings is None:
        yield
        return
    kept = _Settings(settings)  # transformers holds it by a weak reference only
    set_hf_deepspeed_config(kept)
    try:
        yield
    finally:
        unset_hf_deepspeed_config()


class HasParameters(Protocol):
    """A model, or what stands for one."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All of them."""
        ...


def is_split(model: HasParameters) -> bool:
    """Whether a rank has a part of the weights only."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


def num_weights(model: nn.Module) -> int:
    """Numbers of all weights, split or not, tied ones once."""
    return sum(int(getattr(parameter, "ds_numel", parameter.numel())) for parameter in model.parameters())


def handle_around(model: nn.Module, bring: Handle, release: Handle) -> list[Any]:
    """Call ``bring`` before a module runs forward and ``release`` after, for the parameters that it owns itself.

    Without gradients only. Modules run one after another, so no more than one has its weights at a time.

    Returns:
        What takes it back again, by ``remove()``.
    """
    handles: list[Any] = []
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own:
            handles.append(module.register_forward_pre_hook(lambda *_, own=own: bring(own)))
            handles.append(module.register_forward_hook(lambda *_, own=own: release(own)))
    return handles


def gather(parameters: Sequence[Any]) -> None:
    """Make parameters that are split over ranks whole; a collective."""
    parameters[0].all_gather(param_list=list(parameters))


def split_again(parameters: Sequence[Any]) -> None:
    """Keep this rank's parts of whole parameters."""
    parameters[0].partition(param_list=list(parameters))


@contextmanager
def whole_while_used(model: nn.Module) -> Iterator[None]:
    """In the block a model can run although its weights are split and no engine has it; every rank runs it."""
    handles = handle_around(model, gather, split_again) if is_split(model) else []
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def keep_split(model: nn.Module) -> None:
    """For a frozen model for good: each rank has its part, and a module is whole while it runs, on every rank."""
    handle_around(model, gather, split_again)


def keep_in_host_memory(model: nn.Module, device: torch.device) -> None:
    """For a frozen model for good: weights are in host memory, and a module's are on ``device`` while it runs."""
    home = {id(p): p.data.to("cpu") for p in model.parameters()}

    def bring(parameters: Sequence[Any]) -> None:
        for parameter in parameters:
            parameter.data = home[id(parameter)].to(device, copy=True, non_blocking=True)

    def release(parameters: Sequence[Any]) -> None:
        for parameter in parameters:
            parameter.data = home[id(parameter)]

    release(list(model.parameters()))
    handle_around(model, bring, release)
    for name, buffer in model.named_buffers():  # small, and read by whoever runs
        owner, _, last = name.rpartition(".")
        setattr(model.get_submodule(owner), last, buffer.to(device))
