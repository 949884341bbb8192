"""Losses of preference pairs (invariant 28)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.reward_model.preference import (
    bradley_terry_loss,
    dpo_loss,
    dpo_margins,
    dr_dpo_loss,
    dr_dpo_weights,
    ropo_gradient_weight,
    ropo_loss,
    smallest_losses,
)
from tests.learner.oracles import grad_of

F64 = torch.float64
CALM = settings(max_examples=60, deadline=None)
MARGINS = st.lists(st.floats(-30, 30), min_size=1, max_size=20)


def sig(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


@given(margins=MARGINS, a=st.floats(1.01, 100.0))
@CALM
def test_ropo_equals_the_formula_and_its_gradient_weight_is_at_most_1(margins: list[float], a: float) -> None:
    """Invariant 28."""
    d = torch.tensor(margins, dtype=F64)
    scale = 4 * a / (1 + a) ** 2
    expected = [scale * -math.log(sig(x)) + scale * a * sig(-x) for x in margins]
    assert ropo_loss(d, a).tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    weight = ropo_gradient_weight(d, a)
    torch.testing.assert_close(-grad_of(lambda x: ropo_loss(x, a), d), weight, rtol=1e-9, atol=1e-12)
    assert (weight <= 1.0 + 1e-12).all() and (weight >= 0.0).all()


def test_ropo_peaks_at_1_and_forgets_suspected_flips() -> None:
    grid = torch.linspace(-40, 40, 80001, dtype=F64)
    for a in (1.5, 14.0, 60.0):
        weight = ropo_gradient_weight(grid, a)
        assert float(weight.max()) == pytest.approx(1.0, abs=1e-6)
        assert float(weight[0]) == pytest.approx(4 * a / (1 + a) ** 2, rel=1e-6)  # plain DPO would give 1
    with pytest.raises(ValueError, match="a must be greater than 1"):
        ropo_loss(grid, 1.0)


@given(margins=MARGINS)
@CALM
def test_dr_dpo_with_a_huge_temperature_is_dpo(margins: list[float]) -> None:
    """Invariant 28, also in float32."""
    for dtype in (F64, torch.float32):
        d = torch.tensor(margins, dtype=dtype)
        assert dr_dpo_loss(d, 1e6).item() == pytest.approx(dpo_loss(d).mean().item(), rel=1e-4, abs=1e-4)


@given(margins=MARGINS, b=st.floats(0.05, 20.0))
@CALM
def test_dr_dpo_equals_the_formula_and_its_weights_are_its_gradient(margins: list[float], b: float) -> None:
    d = torch.tensor(margins, dtype=F64)
    logs = torch.nn.functional.logsigmoid(d) / b
    expected = -b * (torch.logsumexp(logs, 0) - math.log(len(margins)))
    assert dr_dpo_loss(d, b).item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-9)
    weights = dr_dpo_weights(d, b)
    assert float(weights.sum()) == pytest.approx(1.0)
    through_weights = grad_of(lambda x: (weights * dpo_loss(x)).sum(), d)
    torch.testing.assert_close(grad_of(lambda x: dr_dpo_loss(x, b), d), through_weights, rtol=1e-8, atol=1e-10)
    assert (weights[d.argsort()].diff() >= -1e-15).all()  # implausible pairs count less


def test_margins_by_hand_and_no_gradient_into_the_reference() -> None:
    chosen, rejected, ref_chosen, ref_rejected = (
        torch.tensor([x], dtype=F64, requires_grad=True) for x in (-1.0, -2.0, -1.5, -1.0)
    )
    margin = dpo_margins(chosen, rejected, ref_chosen, ref_rejected, beta=0.4)
    assert margin.item() == pytest.approx(0.4 * (0.5 + 1.0))
    bradley_terry_loss(margin).sum().backward()
    assert chosen.grad is not None and rejected.grad is not None
    assert chosen.grad.item() == pytest.approx(-0.4 * sig(-0.6)) and rejected.grad.item() == -chosen.grad.item()
    assert ref_chosen.grad is None and ref_rejected.grad is None


def test_extreme_margins_stay_finite() -> None:
    d = torch.tensor([-1e4, 1e4, 0.0])
    for loss in (bradley_terry_loss, ropo_loss, dr_dpo_loss):
        assert loss(d).isfinite().all() and grad_of(loss, d).isfinite().all()


@given(losses=st.lists(st.floats(-5, 5), max_size=30), noise=st.floats(0.0, 0.99))
@CALM
def test_the_filter_keeps_the_share_with_the_smallest_losses(losses: list[float], noise: float) -> None:
    x = torch.tensor(losses, dtype=F64)
    keep = smallest_losses(x, noise)
    count = max(1, round((1 - noise) * len(losses))) if losses else 0
    assert int(keep.sum()) == count
    assert sorted(x[keep].tolist()) == sorted(losses)[:count]
    assert noise > 0 or bool(keep.all())
