"""Bytes of the tensors that are alive, as torch makes and frees them: on a CPU, what a GPU's allocator would hold."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveTensors(TorchDispatchMode):
    """Inside of the block, counts each storage that an operation returns once, from its first sight until it is freed.

    A CPU's temporary memory inside of one operation is not seen, as it is not a GPU's either.

    Attributes:
        now, peak: bytes, those of :meth:`hold` included.

    Args:
        known: tensors that were there before.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now, self.peak = 0, 0
        self._seen: dict[int, int] = {}
        for tensor in known:
            self.hold(tensor)

    def hold(self, tensor: Tensor) -> None:
        """Count a tensor that no operation returned."""
        if type(tensor) is not Tensor and not isinstance(tensor, torch.nn.Parameter):
            return
        storage = tensor.untyped_storage()
        key, num_bytes = storage._cdata, storage.nbytes()
        if self._seen.get(key) == num_bytes or tensor.device.type == "meta":
            return
        if key not in self._seen:
            weakref.finalize(storage, self._freed, key)
        self.now += num_bytes - self._seen.get(key, 0)
        self._seen[key] = num_bytes
        self.peak = max(self.peak, self.now)

    def _freed(self, key: int) -> None:
        self.now -= self._seen.pop(key, 0)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and look at what it returns."""
        found = function(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs or {}, found)):
            if isinstance(leaf, Tensor):
                self.hold(leaf)
        return found
