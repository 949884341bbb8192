"""Adapters of ``peft`` in a model: everything else in it is frozen.

peft puts a layer of its own around each target (``X`` becomes ``X.base_layer`` with ``X.lora_A.default`` and
``X.lora_B.default``) and leaves the model as it is otherwise, so it is run and read as before. What it adds to a layer
is ``alpha / rank * B A x``; B starts at 0, so that the model starts as what it was.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from learner.config import LoraOptions
from learner.models.lora.targets import require_peft, target_layers

ADAPTER = "default"
"""peft's name for the only adapter of a model, which its files leave out."""


def peft_config(model: Any, options: LoraOptions, base: str) -> Any:
    """The adapters' configuration in peft's own terms.

    Args:
        model: that gets them; it has none yet.
        base: folder or hub id of its weights.

    Raises:
        UserError: peft is not installed, or the model lacks a target.
    """
    require_peft()
    from peft import LoraConfig

    with_head = model.get_output_embeddings() is not None
    return LoraConfig(
        task_type="CAUSAL_LM" if with_head else None,
        base_model_name_or_path=str(Path(base).resolve()) if Path(base).is_dir() else base,
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=_short(model, target_layers(model, options)),
    )


def _short(model: Any, paths: list[str]) -> list[str]:
    """The last parts of paths, where they mean the same layers to peft."""
    names = {path.rpartition(".")[2] for path in paths}
    meant = {path for path, _ in model.named_modules() if path.rpartition(".")[2] in names}
    return sorted(names) if meant == set(paths) else paths


def add_adapters(model: nn.Module, transformer: Any, options: LoraOptions, base: str, seed: int) -> Any:
    """Freeze ``model`` and put adapters into the transformer in it.

    Args:
        base: folder or hub id of the transformer's weights, for peft's files.
        seed: of the adapters, so that every rank starts equal.

    Returns:
        peft's configuration.
    """
    config = peft_config(transformer, options, base)
    from peft import inject_adapter_in_model

    torch.manual_seed(seed)
    model.requires_grad_(False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"peft\.")
        inject_adapter_in_model(config, transformer, ADAPTER)
    dtype = next(transformer.parameters()).dtype
    for module in adapted_layers(transformer):
        module.lora_A.to(dtype)  # peft may prefer float32 for what is trained: masters are the optimiser's
        module.lora_B.to(dtype)
    return config


def adapted_layers(model: nn.Module) -> Iterator[Any]:
    """peft's layers in a model."""
    from peft.tuners.lora import LoraLayer

    return (module for module in model.modules() if isinstance(module, LoraLayer))


def trunk_with_own_adapters(model: nn.Module, seed: int) -> Any:
    """A copy of a frozen transformer with adapters that shares its frozen weights and has new adapters of its own.

    To be made before an engine has the first one. Modules are copied, so each engine has hooks on its own.

    Args:
        model: with adapters already.
        seed: of the new ones, which are float32 whatever the frozen weights are.
    """
    shared = {id(parameter): parameter for parameter in model.parameters() if not parameter.requires_grad}
    trunk = copy.deepcopy(model, shared)
    torch.manual_seed(seed)
    for layer in adapted_layers(trunk):
        layer.lora_A.float()
        layer.lora_B.float()
        layer.reset_lora_parameters(ADAPTER, True)
    return trunk


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """In the block the model computes what it did before it had adapters, to the last bit.

    They are multiplied by 0 instead of left out: under ZeRO-3 DeepSpeed expects modules to run in the order that it has
    seen, and peft's own switch also changes which weights have gradients.
    """
    layers = list(adapted_layers(model))
    scales = [layer.scaling[ADAPTER] for layer in layers]
    for layer in layers:
        layer.scaling[ADAPTER] = 0.0
    try:
        yield
    finally:
        for layer, scale in zip(layers, scales, strict=True):
            layer.scaling[ADAPTER] = scale


class FrozenBase:
    """The starting policy, as the policy without its adapters; in place of a second copy of the model.

    Args:
        module: the policy.
        forward: runs it, as its engine does.
    """

    def __init__(self, module: nn.Module, forward: Callable[..., dict[str, Tensor]]) -> None:
        self._module, self._forward = module, forward

    def __call__(self, **inputs: Any) -> dict[str, Tensor]:
        """As of the policy, without gradient."""
        with torch.no_grad(), without_adapters(self._module):
            return self._forward(**inputs)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Of the policy."""
        return self._module.parameters()
