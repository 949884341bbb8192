"""The compiled parts of a quantile critic, where they were built: float32 on a CPU, in a fraction of the time.

``pip install`` builds the C files beside this one if there is a C compiler. Without one nothing is lost but time:
numbers agree to the rounding of float32, and the tests compare the two.
"""

from __future__ import annotations

import ctypes
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

_ENTRIES = {"huber": "dvpo_quantile_huber_1", "critic": "dvpo_critic_terms_1"}
"""Names end in a number that grows with every change of the arguments, so that an older build is not called."""


class _Library:
    """The functions of a built library."""

    def __init__(self, path: str) -> None:
        found = ctypes.CDLL(path)
        pointer, count = ctypes.c_void_p, ctypes.c_int64
        self.huber, self.critic = (getattr(found, name) for name in _ENTRIES.values())
        self.huber.argtypes = [pointer, pointer, pointer, ctypes.c_double, *[count] * 4, pointer, pointer]
        self.critic.argtypes = [pointer] * 9


def _load(spec: ModuleSpec | None) -> _Library | None:
    """A built library, or None."""
    if spec is None or spec.origin is None:
        return None
    try:
        return _Library(spec.origin)
    except (OSError, AttributeError):
        return None


_library = _load(find_spec("learner.maths.kernels._quantile_kernel"))


def is_built() -> bool:
    """Whether the compiled form is there."""
    return _library is not None


def serves(queries: Tensor, kappa: float) -> bool:
    """Whether the compiled functions can take these queries."""
    return _library is not None and queries.device.type == "cpu" and queries.dtype == torch.float32 and kappa > 0.0


def huber(queries: Tensor, atoms: Tensor, taus: Tensor, kappa: float) -> tuple[Tensor, Tensor]:
    """Loss and gradient of each query, [row share M] both.

    Args:
        queries: [row share M] float32, in any order; without AVX-512 each drop costs one pass over the atoms more.
        atoms: [row K] float32, ascending.
        taus: [M].
        kappa: > 0.
    """
    assert _library is not None
    queries, atoms, levels = queries.contiguous(), atoms.contiguous(), taus.double().contiguous()
    rows, share, num = queries.shape
    loss, grad = torch.empty_like(queries), torch.empty_like(queries)
    pointers = [x.data_ptr() for x in (queries, atoms, levels)]
    sizes = (rows, share, num, atoms.shape[-1])
    _check(_library.huber(*pointers, kappa, *sizes, loss.data_ptr(), grad.data_ptr()))
    return loss, grad


def critic_terms(options: ctypes.Structure, tensors: tuple[Tensor, ...]) -> None:
    """Call ``dvpo_critic_terms`` of ``critic_kernel.c``, with contiguous tensors in the order of its arguments."""
    assert _library is not None
    _check(_library.critic(ctypes.addressof(options), *(x.data_ptr() for x in tensors)))


def _check(status: Any) -> None:
    if status:
        raise MemoryError("no memory for the working space of the quantile critic's loss")
