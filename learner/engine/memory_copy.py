"""Copies of nested state in ordinary memory, which stay as they are while training goes on."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def copy_to_memory(state: Any) -> tuple[Any, int]:
    """Copy anything that can be pickled, with its tensors moved to the CPU.

    Tensors that share memory still share it in the copy, and only once is it copied: views of a flat buffer, tied
    weights. So ``torch.save`` writes the copy as it would have written the original, but for the device.

    Returns:
        the copy, and the bytes of its tensors.
    """
    storages: dict[int, torch.UntypedStorage] = {}
    copies: dict[int, Any] = {}  # what copy.deepcopy is to take for each tensor, by its id
    for tensor in _tensors(state):
        source = tensor.untyped_storage()
        if source._cdata not in storages:
            storages[source._cdata] = source.clone() if source.device.type == "cpu" else source.cpu()
        view = torch.empty(0, dtype=tensor.dtype)
        copies[id(tensor)] = view.set_(storages[source._cdata], tensor.storage_offset(), tensor.size(), tensor.stride())
    return copy.deepcopy(state, copies), sum(storage.nbytes() for storage in storages.values())


def _tensors(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from _tensors(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from _tensors(value)
