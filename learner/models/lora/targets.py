"""Which layers of a model get adapters. A model without memory for its weights is enough to say so."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

from torch import nn

from learner.config import LoraOptions
from rollout.component import nearest
from rollout.component.mistakes import ModelUnsupported, PackageMissing, UnknownName

WHERE = "model.lora.target_modules"


def require_peft() -> None:
    """peft is an extra of dvpo.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec("peft") is None:
        raise PackageMissing("model.lora: needs the package peft, which is not installed; pip install 'dvpo[lora]'")


def target_layers(model: Any, options: LoraOptions) -> list[str]:
    """Paths within ``model`` of the layers that get adapters, in its order.

    Args:
        model: a transformer, with a head or without; its head never gets one.

    Raises:
        UserError: it has no such layers, or a name is of none.
    """
    layers = dict(linear_layers(model))
    if not layers:
        raise ModelUnsupported(
            f"{WHERE}: {type(model).__name__} has no linear layers (torch's nn.Linear) that adapters fit"
        )
    if options.target_modules == "all-linear":
        return list(layers)
    known = list(dict.fromkeys(path.rpartition(".")[2] for path in layers))
    chosen: set[str] = set()
    for name in options.target_modules:
        found = {path for path in layers if path == name or path.endswith(f".{name}")}
        if not found:
            raise UnknownName(
                f"{WHERE}: the model has no linear layer {name!r}; {nearest(name, known)}; or 'all-linear' for all"
            )
        chosen |= found
    return [path for path in layers if path in chosen]


def adapter_numbers(model: Any, options: LoraOptions) -> tuple[int, int]:
    """Numbers of all adapters of a model, and their ranks together.

    Raises:
        UserError: see :func:`target_layers`.
    """
    layers = [model.get_submodule(path) for path in target_layers(model, options)]
    widths = sum(layer.in_features + layer.out_features for layer in layers)
    return options.rank * widths, options.rank * len(layers)


def linear_layers(model: Any) -> Iterator[tuple[str, nn.Linear]]:
    """Path and layer of each linear layer before the head."""
    head = model.get_output_embeddings()
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and module is not head:
            yield path, module
