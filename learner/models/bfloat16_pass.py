"""Float32 weights that a pass uses in bfloat16, without a second copy of the model.

Under plain autocast the copy of every weight stays until the end of the forward pass, and until the backward pass where
activations are kept: 2 bytes a weight on every device, whatever ZeRO splits, 15 GB for 8 billion.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@contextmanager
def bfloat16_pass(device_type: str, enabled: bool = True) -> Iterator[None]:
    """``torch.autocast`` to bfloat16, whose numbers it gives, that casts a weight when it is used and keeps no copy.

    What autograd would keep of a cast weight is the weight itself; it is cast once more in the backward pass.

    Args:
        enabled: False switches autocast off inside of the block.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.autocast(device_type, torch.bfloat16, enabled=enabled, cache_enabled=False))
        if enabled:
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(_pack, _unpack))
        yield


@dataclass(frozen=True, slots=True)
class _CastLater:
    """A weight in place of its copy in another number format."""

    weight: nn.Parameter
    dtype: torch.dtype
    is_transposed: bool
    version: int


def _pack(saved: Tensor) -> Tensor | _CastLater:
    function, is_transposed = saved.grad_fn, False
    if function is not None and function.name() == "TBackward0":
        function, is_transposed = function.next_functions[0][0], True
    if function is None or function.name() != "ToCopyBackward0":
        return saved
    weight = getattr(function.next_functions[0][0], "variable", None)
    if not isinstance(weight, nn.Parameter) or saved.shape != (weight.t() if is_transposed else weight).shape:
        return saved
    return _CastLater(weight, saved.dtype, is_transposed, weight._version)


def _unpack(kept: Tensor | _CastLater) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    # Under ZeRO-3 a weight comes and goes between the passes; there DeepSpeed sees to it that it is the same.
    if kept.weight._version != kept.version and not hasattr(kept.weight, "ds_id"):
        raise RuntimeError("a weight was changed between the forward and the backward pass")
    cast = kept.weight.detach().to(kept.dtype)
    return cast.t() if kept.is_transposed else cast
