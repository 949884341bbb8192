"""Quantile levels, read-outs and the exact quantile Huber loss. Numbers in comments name the invariants."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner.maths.quantiles.ordering import ascending, ascending_order
from learner.maths.quantiles.quantiles import (
    crossing_fraction,
    lower_cvar,
    midpoint_taus,
    quantile_at,
    quantile_huber_loss,
    quantile_huber_per_level,
    quantile_mean,
    share_weights,
    tail_count,
    upper_cvar,
)
from tests.learner.oracles import bisect, grad_of, pairwise_huber

KAPPAS = (0.0, 0.05, 1.0, 5.0)
F64 = torch.float64
CALM = settings(max_examples=60, deadline=None)


def taus64(num: int) -> Tensor:
    return midpoint_taus(num, dtype=F64)


def draw(kind: str, shape: tuple[int, ...], seed: int, offset: float = 0.0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    normal = torch.randn(shape, generator=g, dtype=F64)
    made = {
        "normal": normal,
        "ties": normal.round(),
        "constant": torch.full(shape, 0.7, dtype=F64),
        "binary": (normal > 0.3).to(F64),
        "heavy": normal / torch.rand(shape, generator=g, dtype=F64).clamp(min=1e-3),
    }[kind]
    return made + offset


# --- levels and read-outs ---


def test_midpoint_taus() -> None:
    assert midpoint_taus(4).tolist() == [0.125, 0.375, 0.625, 0.875]
    assert midpoint_taus(1).tolist() == [0.5]
    assert torch.allclose(taus64(7), 1 - taus64(7).flip(0), atol=1e-15)
    with pytest.raises(ValueError, match="at least 1"):
        midpoint_taus(0)


@given(num=st.integers(1, 300), share=st.floats(0.001, 1.0))
@CALM
def test_tail_count_counts_levels_below_the_share(num: int, share: float) -> None:
    count = sum(Fraction(2 * i - 1, 2 * num) <= Fraction(share) + Fraction(1, 10**9) / num for i in range(1, num + 1))
    if count == 0:
        with pytest.raises(ValueError, match="tail share"):
            tail_count(num, share)
    else:
        assert tail_count(num, share) == count


def test_read_outs_on_numbers() -> None:
    q = torch.tensor([[1.0, 2.0, 4.0, 9.0, 10.0]])
    assert quantile_mean(q).tolist() == [pytest.approx(5.2)]
    assert lower_cvar(q, 0.4).tolist() == [1.5]
    assert upper_cvar(q, 0.4).tolist() == [9.5]
    assert crossing_fraction(torch.tensor([[1.0, 0.0, 0.0, 5.0, 4.0]])).tolist() == [0.5]
    assert crossing_fraction(torch.tensor([[3.0]])).tolist() == [0.0]
    assert quantile_at(q, 0.5).tolist() == [4.0]
    assert quantile_at(q, 0.2).tolist() == [pytest.approx(1.5)]
    assert quantile_at(q, 0.0).tolist() == [1.0]
    assert quantile_at(q, 1.0).tolist() == [10.0]
    assert quantile_at(torch.tensor([[3.0]]), 0.9).tolist() == [3.0]


@given(num=st.integers(1, 50), share=st.floats(0.01, 1.0))
@CALM
def test_share_weights_are_the_exact_cvar(num: int, share: float) -> None:
    """The integral of the atoms' step quantile function over [0, share], on a fine grid."""
    weights = torch.tensor(share_weights(num, 0.0, share), dtype=F64)
    q = draw("normal", (num,), num).sort().values
    steps = 20_000
    grid = (torch.arange(steps, dtype=F64) + 0.5) / steps * share
    integral = q[(grid * num).long().clamp(max=num - 1)].mean()
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-12)
    assert float(weights @ q) == pytest.approx(float(integral), abs=2e-2)
    assert float(torch.tensor(share_weights(num, 0.0, 1.0), dtype=F64) @ q) == pytest.approx(float(q.mean()))


@given(num=st.integers(2, 60), alpha=st.floats(0.3, 0.99), seed=st.integers(0, 99))
@CALM
def test_lower_cvar_mean_upper_cvar_are_ordered(num: int, alpha: float, seed: int) -> None:
    """Invariant 18, last sentence."""
    q = draw("heavy", (3, num), seed).sort(-1).values
    assert (lower_cvar(q, alpha) <= quantile_mean(q) + 1e-9).all()
    assert (quantile_mean(q) <= upper_cvar(q, alpha) + 1e-9).all()


@given(rows=st.integers(0, 4), num=st.integers(1, 300), kind=st.sampled_from(["normal", "ties", "heavy"]))
@CALM
def test_ascending_order_sorts(rows: int, num: int, kind: str) -> None:
    """In both precisions, which go different ways."""
    values = draw(kind, (rows, num), num)
    for x in (values, values.float(), values.float().reshape(num, rows).T):
        order = ascending_order(x)
        assert torch.equal(x.gather(-1, order), x.sort(dim=-1).values)
        assert torch.equal(order.sort(dim=-1).values, torch.arange(num).expand(rows, num))


def test_ascending_order_of_special_values() -> None:
    inf = math.inf
    x = torch.tensor([[math.nan, inf, 0.0, -inf, 1e-45, -1e-45, -3.0, -0.0, 3.4e38]], requires_grad=True)
    order = ascending_order(x)
    assert sorted(order[0].tolist()) == list(range(9))
    assert torch.equal(x.gather(-1, order)[0, :8], torch.tensor([-inf, -3.0, -1e-45, 0.0, 0.0, 1e-45, 3.4e38, inf]))
    assert not order.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_gradients_follow_the_order(dtype: torch.dtype) -> None:
    x, weights = draw("normal", (4, 3, 17), 0).to(dtype), torch.arange(17.0, dtype=dtype)
    assert torch.equal(ascending(x), x.sort(dim=-1).values)
    slope = grad_of(lambda v: ascending(v) * weights, x)
    assert torch.equal(slope, grad_of(lambda v: v.sort(dim=-1).values * weights, x))


# --- the loss against its oracle ---


@given(
    num=st.integers(1, 300),
    atoms=st.integers(1, 300),
    kappa=st.sampled_from(KAPPAS),
    kind=st.sampled_from(["normal", "ties", "constant", "binary", "heavy"]),
    offset=st.sampled_from([0.0, 1.0, 1000.0, -1000.0]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=120, deadline=None)
def test_loss_and_gradient_equal_the_pairwise_form(
    num: int, atoms: int, kappa: float, kind: str, offset: float, seed: int
) -> None:
    """Invariant 11, float64. Queries are sometimes atoms, so that ties happen."""
    q = draw("normal", (2, num), seed, offset)
    y = draw(kind, (2, atoms), seed + 1, offset)
    share = min(num, atoms) // 2
    q[:, :share] = y[:, :share]
    taus = taus64(num)
    fast = lambda x: quantile_huber_per_level(x, y, taus, kappa)  # noqa: E731
    slow = lambda x: pairwise_huber(x, y, taus, kappa)  # noqa: E731
    scale = float((y - y.mean()).abs().max() + 1.0)
    assert torch.allclose(fast(q), slow(q), rtol=1e-9, atol=1e-11 * scale * max(1.0, scale / max(kappa, 1e-1)))
    assert torch.allclose(grad_of(fast, q), grad_of(slow, q), rtol=1e-9, atol=1e-9)
    whole = quantile_huber_loss(q, y, taus, kappa)
    assert torch.allclose(whole, slow(q).mean(-1), rtol=1e-9, atol=1e-10 * scale * max(1.0, scale / max(kappa, 1e-1)))


@pytest.mark.parametrize("kappa", KAPPAS)
@pytest.mark.parametrize("kind", ["normal", "binary", "heavy"])
@pytest.mark.parametrize("offset", [0.0, 5.0, 500.0, 1000.0])
def test_float32_is_exact_at_offsets(kappa: float, kind: str, offset: float) -> None:
    """Invariant 11 in float32: centring keeps 1e-5 where prefix sums without it would lose every digit."""
    q, y = (draw(kind, (8, 200), seed, offset).float() for seed in (1, 2))
    taus = midpoint_taus(200)
    exact = pairwise_huber(q.double(), y.double(), taus64(200), kappa)
    fast = quantile_huber_per_level(q, y, taus, kappa)
    assert fast.dtype == torch.float32
    assert torch.allclose(fast.double(), exact, rtol=1e-5, atol=1e-6)
    exact_grad = grad_of(lambda x: pairwise_huber(x, y.double(), taus64(200), kappa), q.double())
    fast_grad = grad_of(lambda x: quantile_huber_per_level(x, y, taus, kappa), q).double()
    assert torch.allclose(fast_grad, exact_grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kappa", [1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize("atoms", [1, 200])
def test_float32_with_a_kappa_near_the_resolution(kappa: float, atoms: int) -> None:
    """Rounding must not put atoms on the wrong side of a breakpoint: they lie at, and one step beside, the queries."""
    q = draw("normal", (64, 200), 5).float() * 100.0
    y = q[:, :atoms].contiguous()
    y[1::2] = torch.nextafter(y[1::2], torch.tensor(math.inf))
    y[2::4] = torch.nextafter(y[2::4], torch.tensor(-math.inf))
    exact = grad_of(lambda x: pairwise_huber(x, y.double(), taus64(200), kappa), q.double())
    fast = grad_of(lambda x: quantile_huber_per_level(x, y, midpoint_taus(200), kappa), q).double()
    assert torch.allclose(fast, exact, rtol=1e-5, atol=1e-6)


@given(kappa=st.sampled_from([0.05, 0.4, 1.0]), seed=st.integers(0, 1000))
@CALM
def test_gradient_equals_finite_differences(kappa: float, seed: int) -> None:
    """Invariant 11: H is C1, so central differences agree everywhere up to curvature jumps."""
    q, y, h = draw("normal", (5,), seed), draw("normal", (9,), seed + 1), 1e-6
    fast = lambda x: quantile_huber_loss(x, y, taus64(5), kappa)  # noqa: E731
    steps = h * torch.eye(5, dtype=F64)
    numeric = torch.stack([(fast(q + d) - fast(q - d)) / (2 * h) for d in steps])
    assert torch.allclose(grad_of(fast, q), numeric, atol=5e-6)


def test_heads_share_one_set_of_atoms() -> None:
    """Leading axes broadcast: [n head M] against [n 1 K], [head n M] against [n K], [n M] against [K]."""
    taus = taus64(6)
    q, y = draw("normal", (7, 3, 6), 0), draw("normal", (7, 11), 1)
    each = torch.stack([quantile_huber_loss(q[:, h], y, taus, 0.3) for h in range(3)], dim=1)
    assert torch.allclose(quantile_huber_loss(q, y[:, None], taus, 0.3), each, rtol=1e-12)
    assert torch.allclose(quantile_huber_loss(q.transpose(0, 1), y, taus, 0.3), each.T, rtol=1e-12)
    single = torch.stack([quantile_huber_loss(row, y[0], taus, 0.3) for row in q[:, 0]])
    assert torch.allclose(quantile_huber_loss(q[:, 0], y[0], taus, 0.3), single, rtol=1e-12)
    together = grad_of(lambda x: quantile_huber_loss(x, y[:, None], taus, 0.3), q)
    alone = torch.stack([grad_of(lambda x: quantile_huber_loss(x, y, taus, 0.3), q[:, h]) for h in range(3)], dim=1)
    assert torch.allclose(together, alone, rtol=1e-12)


def test_atoms_are_sorted_once_for_all_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 3 heads the rows that are sorted are the 40 of Y, not 120; none if they are known to be sorted."""
    rows: list[int] = []
    true_sort = torch.Tensor.sort

    def counting(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        rows.append(self.shape[:-1].numel())
        return true_sort(self, *args, **kwargs)

    q, y = draw("normal", (40, 3, 8), 0), draw("normal", (40, 1, 8), 1)
    monkeypatch.setattr(torch.Tensor, "sort", counting)
    shared = quantile_huber_loss(q, y, taus64(8), 0.1)
    assert sum(rows) == 40
    ordered = true_sort(y, dim=-1).values
    rows.clear()
    assert torch.equal(quantile_huber_loss(q, ordered, taus64(8), 0.1, targets_sorted=True), shared)
    assert rows == []


def test_memory_is_linear() -> None:
    """What autograd keeps is one number per query; the pairwise tensor would be 100 times that."""
    q = draw("normal", (64, 3, 100), 0).requires_grad_()
    kept: list[int] = []

    def keep(saved: Tensor) -> Tensor:
        kept.append(saved.numel())
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        quantile_huber_per_level(q, draw("normal", (64, 1, 100), 1), taus64(100), 0.05)
    assert sum(kept) == q.numel()


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    q, y = draw("normal", (50, 2, 9), 0), draw("normal", (50, 1, 13), 1)
    whole = quantile_huber_loss(q, y, taus64(9), 0.2)
    monkeypatch.setattr("learner.maths.quantiles.huber._CPU_CHUNK", 64)
    assert torch.equal(quantile_huber_loss(q, y, taus64(9), 0.2), whole)


def test_no_rows_and_bad_shapes() -> None:
    empty = torch.zeros(0, 3, 8, requires_grad=True)
    loss = quantile_huber_loss(empty, torch.zeros(0, 1, 5), midpoint_taus(8), 0.1)
    loss.sum().backward()
    assert loss.shape == (0, 3)
    assert empty.grad is not None
    q = torch.zeros(4, 8)
    with pytest.raises(ValueError, match="kappa"):
        quantile_huber_loss(q, q, midpoint_taus(8), -0.1)
    with pytest.raises(ValueError, match="taus"):
        quantile_huber_loss(q, q, midpoint_taus(7), 0.1)
    with pytest.raises(ValueError, match="broadcast"):
        quantile_huber_loss(q, torch.zeros(3, 8), midpoint_taus(8), 0.1)
    with pytest.raises(ValueError, match="at least one atom"):
        quantile_huber_loss(q, torch.zeros(4, 0), midpoint_taus(8), 0.1)


def test_no_gradient_into_targets() -> None:
    """Invariant 23, second sentence."""
    q, y = torch.zeros(2, 4, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    quantile_huber_loss(q, y, midpoint_taus(4), 0.1).sum().backward()
    assert y.grad is None


# --- properties of the loss ---


@given(kappa=st.sampled_from(KAPPAS), seed=st.integers(0, 1000), mix=st.floats(0.0, 1.0))
@CALM
def test_convex_and_non_negative(kappa: float, seed: int, mix: float) -> None:
    """Invariant 12."""
    a, b, y = (draw("normal", (6,), seed + i) for i in range(3))
    loss = lambda q: quantile_huber_per_level(q, y, taus64(6), kappa)  # noqa: E731
    assert (loss(mix * a + (1 - mix) * b) <= mix * loss(a) + (1 - mix) * loss(b) + 1e-12).all()
    assert (loss(a) >= 0).all()


@given(kappa=st.sampled_from(KAPPAS), seed=st.integers(0, 1000), scale=st.floats(0.01, 100.0))
@CALM
def test_zero_symmetries_and_homogeneity(kappa: float, seed: int, scale: float) -> None:
    """Invariant 12: zero iff every q equals every Y; permutations of Y; translation; homogeneity with kappa."""
    q, y, taus = draw("normal", (6,), seed), draw("normal", (8,), seed + 1), taus64(6)
    loss = quantile_huber_loss(q, y, taus, kappa)
    assert quantile_huber_loss(torch.full_like(q, 0.3), torch.full_like(y, 0.3), taus, kappa) == 0.0
    assert loss > 0.0
    near = torch.full_like(q, 0.3)
    near[2] += 1e-3
    assert quantile_huber_loss(near, torch.full_like(y, 0.3), taus, kappa) > 0.0
    assert torch.allclose(quantile_huber_loss(q, y.flip(0), taus, kappa), loss, rtol=1e-12)
    assert torch.allclose(quantile_huber_loss(q + 7.0, y + 7.0, taus, kappa), loss, rtol=1e-9)
    assert torch.allclose(quantile_huber_loss(scale * q, scale * y, taus, scale * kappa), scale * loss, rtol=1e-9)


@given(kappa=st.sampled_from(KAPPAS), seed=st.integers(0, 1000))
@CALM
def test_mirror(kappa: float, seed: int) -> None:
    """Invariant 13: (tau, q, Y) -> (1 - tau, -q, -Y) with the order reversed."""
    q, y = draw("normal", (9,), seed), draw("normal", (5,), seed + 1)
    mirrored = quantile_huber_per_level(-q.flip(0), -y, 1 - taus64(9).flip(0), kappa).flip(0)
    assert torch.allclose(mirrored, quantile_huber_per_level(q, y, taus64(9), kappa), rtol=1e-9, atol=1e-14)


def minimiser(samples: Tensor, num: int, kappa: float, weights: Tensor | None = None) -> Tensor:
    """Quantile vector that minimises the loss on one sample of atoms; the loss is convex and separable over levels."""
    taus = taus64(num)
    slope = lambda q: grad_of(lambda x: quantile_huber_loss(x, samples, taus, kappa, weights), q)  # noqa: E731
    ends = torch.ones(num, dtype=F64)
    return bisect(slope, (float(samples.min()) - 6) * ends, (float(samples.max()) + 6) * ends)


def gaussian(num: int) -> Tensor:
    quantiles: Tensor = torch.special.ndtri(taus64(num))
    return quantiles


def test_minimiser_is_the_quantile_function() -> None:
    """Invariant 14: kappa = 0 gives the tau_i quantiles; kappa = .05 is within about .02 of them on continuous laws.

    A level tau moves inward by kappa * |1 - 2 tau| / 2 to first order: .025 at the ends, .0125 on average.
    """
    exponential = lambda num: -torch.log(1 - taus64(num))  # noqa: E731
    for law in (gaussian, exponential):
        samples, truth = law(20_001), law(10)
        assert torch.allclose(minimiser(samples, 10, 0.0), truth, atol=2e-3)
        shift = minimiser(samples, 10, 0.05) - truth
        assert torch.allclose(shift, 0.05 * (1 - 2 * taus64(10)) / 2, atol=2e-3)
        assert float(shift.abs().mean()) < 0.02


@pytest.mark.parametrize(
    ("p", "kappa", "mean"),
    [
        (0.2, 1.0, 0.283),
        (0.1, 1.0, 0.184),
        (0.1, 0.1, 0.111),
        (0.1, 0.02, 0.102),
        (0.2, 0.25, 0.227),
        (0.2, 0.1, 0.211),
    ],
)
def test_expectile_bias_of_a_large_kappa(p: float, kappa: float, mean: float) -> None:
    """Invariant 15 and the table: Bernoulli(p), M = 200; kappa = 1 learns expectiles."""
    atoms = (torch.arange(1000) < 1000 * p).to(F64)
    assert float(minimiser(atoms, 200, kappa).mean()) == pytest.approx(mean, abs=1e-3)


@pytest.mark.slow
@given(seed=st.integers(0, 100), eta=st.floats(-3.0, 3.0))
@settings(max_examples=10, deadline=None)
def test_positive_weights_leave_the_minimiser(seed: int, eta: float) -> None:
    """Invariant 15, second sentence."""
    samples = draw("normal", (101,), seed)
    weights = torch.exp(-eta * taus64(7))
    assert torch.allclose(minimiser(samples, 7, 0.05, weights), minimiser(samples, 7, 0.05), atol=1e-9)


def test_weights_are_applied_before_the_mean() -> None:
    q, y, taus = draw("normal", (2, 5), 0), draw("normal", (2, 4), 1), taus64(5)
    weights = torch.tensor([0.0, 1.0, 2.0, 0.5, 1.5], dtype=F64)
    slow = (pairwise_huber(q, y, taus, 0.1) * weights).mean(-1)
    assert torch.allclose(quantile_huber_loss(q, y, taus, 0.1, weights), slow, rtol=1e-12)


@given(kappa=st.floats(2.0, 50.0), u=st.floats(-1.9, 1.9))
@CALM
def test_one_quantile_is_the_squared_error(kappa: float, u: float) -> None:
    """Invariant 1: M = 1, kappa >= |u|: u^2 / (4 kappa), the gradient that of PPO over 2 kappa; kappa = 0: |u| / 2."""
    q, y, taus = torch.tensor([0.4], dtype=F64), torch.tensor([0.4 + u], dtype=F64), taus64(1)
    assert float(quantile_huber_loss(q, y, taus, kappa)) == pytest.approx(u * u / (4 * kappa), rel=1e-9, abs=1e-15)
    slope = grad_of(lambda x: quantile_huber_loss(x, y, taus, kappa), q)
    assert float(slope) == pytest.approx(-u / (2 * kappa), rel=1e-9, abs=1e-12)
    assert float(quantile_huber_loss(q, y, taus, 0.0)) == pytest.approx(abs(u) / 2, rel=1e-9, abs=1e-15)
    assert math.isfinite(u)
