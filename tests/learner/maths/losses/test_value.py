"""Scalar value losses."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.maths.losses.value import clipped_step, explained_variance, value_loss
from tests.learner.oracles import grad_of

F64 = torch.float64


@given(v=st.floats(-3, 3), r=st.floats(-3, 3), old=st.floats(-3, 3), clip=st.floats(0.01, 2.0))
@settings(max_examples=60, deadline=None)
def test_value_loss_equals_the_formula(v: float, r: float, old: float, clip: float) -> None:
    values, returns, before = (torch.tensor([x], dtype=F64) for x in (v, r, old))
    stepped = old + min(max(v - old, -clip), clip)
    assert value_loss(values, returns).item() == pytest.approx((v - r) ** 2 / 2)
    expected = max((v - r) ** 2, (stepped - r) ** 2) / 2
    assert value_loss(values, returns, before, clip).item() == pytest.approx(expected)
    assert clipped_step(values, before, clip).item() == pytest.approx(stepped)


def test_gradients_go_to_the_values_only() -> None:
    """Invariant 23; and the gradient is V - R, or 0 where the clipped term is the larger one and the step is cut."""
    returns, old = torch.tensor([1.0, 0.0], requires_grad=True), torch.tensor([0.0, 0.0], requires_grad=True)
    assert grad_of(lambda v: value_loss(v, returns), torch.tensor([0.5, 2.0])).tolist() == [-0.5, 2.0]
    # both moved by .5 with clip .1: towards its return (the clipped error is larger: gradient 0), and away from it
    assert grad_of(lambda v: value_loss(v, returns, old, 0.1), torch.tensor([0.5, 0.5])).tolist() == [0.0, 0.5]
    with pytest.raises(ValueError, match="old_values"):
        value_loss(returns, returns, None, 0.2)


def test_explained_variance() -> None:
    returns = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(returns + 5.0, returns) == pytest.approx(1.0)
    assert explained_variance(torch.zeros(4), returns) == 0.0
    assert explained_variance(returns / 2, returns) == pytest.approx(0.75)
    assert explained_variance(returns, torch.ones(4)) == 0.0
    assert explained_variance(torch.zeros(0), torch.zeros(0)) == 0.0


def test_returns_and_old_values_get_no_gradient() -> None:
    """Invariant 23, with and without the clip."""
    values, returns, old = (torch.tensor([x], requires_grad=True) for x in (0.5, 1.0, 0.4))
    (value_loss(values, returns) + value_loss(values, returns, old, 0.2)).sum().backward()
    clipped_step(values, old, 0.2).sum().backward()
    assert values.grad is not None
    assert returns.grad is None and old.grad is None
