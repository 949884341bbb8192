"""Which quantiles the tail terms read: the sizes of their sets and blocks, and what is refused. By hand."""

from __future__ import annotations

import pytest
import torch

from learner.maths.losses import tail
from learner.maths.quantiles.quantiles import midpoint_taus

F64 = torch.float64


@pytest.mark.parametrize(("alpha", "beta"), [(0.2, 0.4), (0.4, 0.2)])
@pytest.mark.parametrize("form", ["asymmetric", "unimodal", "smooth", "blocks"])
def test_a_bend_needs_three_quantiles_in_either_tail(form: tail.CurvatureForm, alpha: float, beta: float) -> None:
    with pytest.raises(ValueError, match=r"0\.2 holds 2 of 10 quantile levels, but at least 3 are needed"):
        tail.tail_curvature(midpoint_taus(10, dtype=F64), alpha, beta, form)
