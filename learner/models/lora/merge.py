"""Adapters and frozen weights as the weights of one ordinary model: ``W + alpha / rank * B A``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from torch import Tensor

from learner.models.lora.adapters import ADAPTER

BASE = ".base_layer."
_A, _B = f".lora_A.{ADAPTER}.weight", f".lora_B.{ADAPTER}.weight"
Part = TypeVar("Part")


def is_adapter(name: str) -> bool:
    """Whether a parameter is of an adapter, by its name."""
    return name.endswith((_A, _B))


def merged_by(
    parts: Iterable[tuple[str, Part]], combine: Callable[[Part, Part, Part], Part]
) -> Iterator[tuple[str, Part]]:
    """The parameters of the ordinary model, under its own names.

    A frozen weight is held until both matrices of its adapter have come, which in a module's order is at once.

    Args:
        parts: of each parameter, in the order of ``named_parameters``.
        combine: makes one of a frozen weight [out in] and its adapter's A [rank in] and B [out rank].
    """
    held: dict[str, Part] = {}
    first: dict[str, Part] = {}
    for name, part in parts:
        if name.endswith(_A):
            first[name.removesuffix(_A)] = part
        elif name.endswith(_B):
            layer = name.removesuffix(_B)
            yield f"{layer}.weight", combine(held.pop(layer), first.pop(layer), part)
        elif name.endswith(f"{BASE}weight"):
            held[name.removesuffix(f"{BASE}weight")] = part
        else:
            yield name.replace(BASE, "."), part
    assert not held and not first, "a frozen weight or an adapter without the other"


def merge(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """A frozen weight [out in] with its adapter, computed in float32, in its own number format."""
    return weight.float().addmm(b.float(), a.float(), alpha=scale).to(weight.dtype)


def merged_name(name: str) -> str:
    """The ordinary model's name of the weight that a parameter goes into."""
    for ending in (_A, _B):
        if name.endswith(ending):
            return f"{name.removesuffix(ending)}.weight"
    return name.replace(BASE, ".")


def merge_into(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """The same in float32 for good. A float32 ``weight`` is written to, so that there is no second one."""
    return weight.float().addmm_(b.float(), a.float(), alpha=scale)
