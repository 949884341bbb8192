"""Where the fast forms of sorting and of the quantile loss could lose something: other types, near breakpoints."""

from __future__ import annotations

import pytest
import torch

from learner.maths.quantiles.ordering import ascending, ascending_order
from learner.maths.quantiles.quantiles import midpoint_taus, quantile_huber_per_level
from tests.learner.oracles import grad_of, pairwise_huber

F64 = torch.float64


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bfloat16, torch.float16])
def test_other_types_are_sorted_along_the_last_axis_too(dtype: torch.dtype) -> None:
    x = torch.tensor([[[3, -1, 2, 7], [0, 5, 4, -6]]], dtype=dtype)
    assert ascending_order(x).tolist() == [[[1, 2, 0, 3], [3, 0, 2, 1]]]
    assert ascending(x).tolist() == [[[-1, 2, 3, 7], [-6, 0, 4, 5]]]


@pytest.mark.parametrize("kappa", [0.05, 0.4])
def test_float64_keeps_its_digits_beside_the_breakpoints(kappa: float) -> None:
    """Atoms a few 1e-9 inside and outside of kappa: sorted in float32 they would be on either side at random."""
    taus = midpoint_taus(20, dtype=F64)
    q = torch.linspace(0.3, 0.9, 20, dtype=F64)[None]
    offsets = torch.tensor([-5e-9, 5e-9], dtype=F64).repeat(10)
    atoms = torch.cat([q + kappa + offsets, q - kappa + offsets], dim=-1)
    fast = grad_of(lambda x: quantile_huber_per_level(x, atoms, taus, kappa), q)
    slow = grad_of(lambda x: pairwise_huber(x, atoms, taus, kappa), q)
    assert torch.allclose(fast, slow, rtol=0.0, atol=1e-11)
