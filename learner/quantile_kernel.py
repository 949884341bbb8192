"""The quantile Huber loss in C, where it was built: float32 on a CPU, in a quarter of the time of PyTorch's operations.

``pip install`` builds ``quantile_kernel.c`` if there is a C compiler. Without one nothing is lost but time: numbers
agree to the rounding of float32, and the tests compare the two.
"""

from __future__ import annotations

import ctypes
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

_ENTRY = "dvpo_quantile_huber_1"
"""Ends in a number that grows with every change of the arguments, so that a library of an older build is not called."""


def _load(spec: ModuleSpec | None) -> Any:
    """The function of a built library, or None."""
    if spec is None or spec.origin is None:
        return None
    try:
        entry = getattr(ctypes.CDLL(spec.origin), _ENTRY)
    except (OSError, AttributeError):
        return None
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    entry.argtypes = [pointer, pointer, pointer, ctypes.c_double, count, count, count, count, pointer, pointer]
    entry.restype = ctypes.c_int
    return entry


_huber: Any = _load(find_spec("learner._quantile_kernel"))


def is_built() -> bool:
    """Whether the compiled form is there."""
    return _huber is not None


def serves(queries: Tensor, kappa: float) -> bool:
    """Whether :func:`huber` can take these queries."""
    return _huber is not None and queries.device.type == "cpu" and queries.dtype == torch.float32 and kappa > 0.0


def huber(queries: Tensor, atoms: Tensor, taus: Tensor, kappa: float) -> tuple[Tensor, Tensor]:
    """Loss and gradient of each query, [row share M] both.

    Time is O(M + K) where a row's queries ascend. Each drop among them costs one pass over the atoms more.

    Args:
        queries: [row share M] float32.
        atoms: [row K] float32, ascending.
        taus: [M].
        kappa: > 0.
    """
    queries, atoms, levels = queries.contiguous(), atoms.contiguous(), taus.double().contiguous()
    rows, share, num = queries.shape
    loss, grad = torch.empty_like(queries), torch.empty_like(queries)
    pointers = [x.data_ptr() for x in (queries, atoms, levels)]
    sizes = (rows, share, num, atoms.shape[-1])
    if _huber(*pointers, kappa, *sizes, loss.data_ptr(), grad.data_ptr()):
        raise MemoryError("no memory for the working space of the quantile Huber loss")
    return loss, grad
