"""Tail terms of the quantile critic, at the level of sorted outputs. Numbers in comments name the invariants."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner.maths.losses import tail
from learner.maths.quantiles.quantiles import lower_cvar, midpoint_taus, quantile_huber_loss, quantile_mean, upper_cvar
from tests.learner.oracles import grad_of

F64 = torch.float64
CALM = settings(max_examples=40, deadline=None)
M, SHARE = 40, 0.2
LOW, HIGH = slice(0, 8), slice(32, 40)


def gaussian(num: int = M) -> Tensor:
    quantiles: Tensor = torch.special.ndtri(midpoint_taus(num, dtype=F64))
    return quantiles


def random_sorted(seed: int, *lead: int, num: int = M) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn((*lead, num), generator=g, dtype=F64).sort(-1).values


# --- Eq 4 ---


@given(eta=st.floats(-5.0, 5.0), num=st.integers(1, 50))
@CALM
def test_risk_weights(eta: float, num: int) -> None:
    taus = midpoint_taus(num, dtype=F64)
    weights = tail.risk_weights(taus, eta)
    assert float(weights.mean()) == pytest.approx(1.0)
    assert (weights > 0).all()
    assert (weights.diff() * math.copysign(1.0, eta) <= 1e-15).all()  # eta > 0: emphasis below
    assert torch.allclose(tail.risk_weights(taus, eta, "upper"), weights.flip(0))
    assert torch.allclose(tail.risk_weights(taus, 0.0), torch.ones_like(taus))


# --- Eq 5 and 6 ---


def ru_oracle(q: Tensor, y: Tensor, share: float, upper: bool) -> float:
    """Mirrored into the lower tail, written out for one vector."""
    if upper:
        return ru_oracle(-q.flip(0), -y.flip(0), share, False)
    position = share * len(q) - 0.5
    low = int(position)
    v = float(q[low]) * (low + 1 - position) + float(q[low + 1]) * (position - low)
    goal = v - sum(max(v - float(x), 0.0) for x in y) / len(y) / share
    return (float(q[: round(share * len(q))].mean()) - goal) ** 2


@given(seed=st.integers(0, 1000), atoms=st.integers(1, 30), share=st.sampled_from([0.1, 0.2, 0.45]))
@CALM
def test_calibration_equals_the_formula(seed: int, atoms: int, share: float) -> None:
    q, y = random_sorted(seed), random_sorted(seed + 1, num=atoms)
    for side, upper in (("lower", False), ("upper", True)):
        found = tail.tail_calibration(q, y, share, side)  # type: ignore[arg-type]
        assert found.item() == pytest.approx(ru_oracle(q, y, share, upper), rel=1e-9, abs=1e-12)
    count = max(1, round(share * atoms))
    literal = (lower_cvar(q, share) - y[:count].mean()).square()
    assert torch.allclose(tail.tail_calibration(q, y, share, "lower", "target_tail"), literal)
    literal = (upper_cvar(q, share) - y[-count:].mean()).square()
    assert torch.allclose(tail.tail_calibration(q, y, share, "upper", "target_tail"), literal)


@given(seed=st.integers(0, 1000))
@CALM
def test_one_sided_calibration_only_pushes_up(seed: int) -> None:
    q, y = random_sorted(seed), random_sorted(seed + 1, num=3)

    def slope(side: tail.Side, form: tail.Calibration) -> Tensor:
        return grad_of(lambda x: tail.tail_calibration(x, y, SHARE, side, form, "one_sided"), q)

    for side in ("lower", "upper"):
        for form in ("ru", "target_tail"):
            both, one = (tail.tail_calibration(q, y, SHARE, side, form, s) for s in ("two_sided", "one_sided"))
            grad = slope(side, form)
            assert one.item() in (0.0, both.item())
            assert (grad <= 0).all()


@given(seed=st.integers(0, 1000), atoms=st.integers(1, 30))
@CALM
def test_gradients_vanish_outside_their_sets(seed: int, atoms: int) -> None:
    """Invariant 17, second half: Eq 5, 6, 8 and 9."""
    q, y = random_sorted(seed, 3), random_sorted(seed + 1, 1, num=atoms)
    outside_low, outside_high = torch.ones(M, dtype=torch.bool), torch.ones(M, dtype=torch.bool)
    outside_low[LOW], outside_high[HIGH] = False, False

    def calibration(side: tail.Side, form: tail.Calibration) -> Tensor:
        return grad_of(lambda x: tail.tail_calibration(x, y, SHARE, side, form), q)

    def curvature(form: tail.CurvatureForm) -> Tensor:
        return grad_of(lambda x: tail.tail_curvature(x, SHARE, SHARE, form), q)

    for form in ("ru", "target_tail"):
        low, high = calibration("lower", form), calibration("upper", form)
        assert (low[:, outside_low] == 0).all() and (high[:, outside_high] == 0).all()
    for bend in ("asymmetric", "unimodal", "smooth"):
        grad = curvature(bend)
        assert (grad[:, outside_low & outside_high] == 0).all()
    shape = grad_of(lambda x: shape_of(x), q)
    assert (shape[:, outside_low & outside_high] == 0).all()


def descend(loss: Callable[[Tensor], Tensor], q: Tensor, steps: int, rate: float) -> Tensor:
    """Plain gradient descent on a vector of quantiles, kept sorted as the head does."""
    for _ in range(steps):
        q = (q - rate * grad_of(loss, q)).sort().values
    return q


@pytest.mark.slow
def test_ru_calibration_finds_the_cvar_and_the_literal_form_the_mean() -> None:
    """Invariant 18: point masses drawn from N(0, 1), alpha .1, truth -1.755; the literal minimiser is the mean."""
    samples = gaussian(1001)[:, None]
    start = gaussian()
    truth = (
        -float(torch.exp(-torch.special.ndtri(torch.tensor(0.1, dtype=F64)).square() / 2))
        / math.sqrt(2 * math.pi)
        / 0.1
    )
    assert truth == pytest.approx(-1.755, abs=1e-3)
    start[:4] += 0.4  # a lower tail that is too high; its upper end, the VaR, follows the other term
    taus = midpoint_taus(M, dtype=F64)

    def sound(q: Tensor) -> Tensor:
        wide = q.expand(1001, M)
        regression = quantile_huber_loss(wide, samples, taus, 0.05).mean()
        return regression + 0.1 * tail.tail_calibration(wide, samples, 0.1, "lower").mean()

    assert float(lower_cvar(descend(sound, start.clone(), 300, 2.0), 0.1)) == pytest.approx(truth, abs=0.02)

    def literal(q: Tensor) -> Tensor:
        return tail.tail_calibration(q.expand(1001, M), samples, 0.1, "lower", "target_tail").mean()

    end = gaussian()
    for _ in range(200):  # without sorting: only the four quantiles of the set move
        end = end - 2.0 * grad_of(literal, end)
    assert float(end[:4].mean()) == pytest.approx(0.0, abs=1e-6)


def test_ru_goal_is_insensitive_to_the_anchor() -> None:
    """The table: an anchor off by .3 moves the goal from -1.755 to about -1.85 only."""
    y = gaussian(20_001)
    for error in (-0.3, 0.3):
        q = gaussian(200) + error
        goal = float(q[:20].mean()) - math.sqrt(tail.tail_calibration(q, y, 0.1, "lower").item()) * (
            1 if error > 0 else -1
        )
        assert -1.86 < goal < -1.80


# --- Eq 7 ---


@given(seed=st.integers(0, 1000))
@CALM
def test_mean_shift(seed: int) -> None:
    """Invariant 19."""
    q, y = random_sorted(seed), random_sorted(seed + 1, num=7)
    gap = float(y.mean() - q.mean())
    assert tail.mean_shift(q, y).item() == pytest.approx(gap**2)
    assert tail.mean_shift(q, y, "hinge").item() == pytest.approx(max(0.0, gap))
    even = q + gap
    assert grad_of(lambda x: tail.mean_shift(x, y), even).abs().max() < 1e-12
    above = q + gap + 1e-6
    assert (grad_of(lambda x: tail.mean_shift(x, y, "hinge"), above) == 0).all()
    assert torch.allclose(quantile_mean(even), y.mean())


# --- Eq 8 ---


def shape_of(q: Tensor, contract: float = 0.8, expand: float = 1.2) -> Tensor:
    references = [tail.iqr_reference(q, SHARE, side) for side in ("lower", "upper")]
    return tail.tail_shape(q, references[0], references[1], SHARE, SHARE, contract, expand)


def test_gaussian_ratio() -> None:
    """The constant: g = .085 at M = 200 and share .1; Eq 8 is 0 on Gaussian quantiles with c = 1."""
    q = gaussian(200)
    reference = tail.iqr_reference(q, 0.1, "lower")
    assert float(reference / tail.interquartile_range(q).square()) == pytest.approx(0.085, abs=5e-4)
    assert shape_of(3.0 * gaussian() - 1.0, 1.0, 1.0).item() == pytest.approx(0.0, abs=1e-12)
    assert shape_of(gaussian()).item() > 0.01


@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10.0), shift=st.floats(-5.0, 5.0))
@CALM
def test_shape_scales_with_the_square(seed: int, scale: float, shift: float) -> None:
    """Invariant 20, second half."""
    q = random_sorted(seed, 3)
    assert torch.allclose(shape_of(scale * q + shift), scale**2 * shape_of(q), rtol=1e-9, atol=1e-12)


@given(seed=st.integers(0, 1000))
@CALM
def test_shape_gradients_sum_to_zero_in_each_set(seed: int) -> None:
    """Invariant 17, first half."""
    grad = grad_of(shape_of, random_sorted(seed, 4))
    assert grad[:, LOW].sum(-1).abs().max() < 1e-12
    assert grad[:, HIGH].sum(-1).abs().max() < 1e-12


def test_small_steps_contract_below_and_expand_above() -> None:
    """Invariant 16."""
    q = gaussian()
    q[LOW] = q[LOW].mean() + 2.0 * (q[LOW] - q[LOW].mean())
    step = q - 1e-3 * grad_of(shape_of, q)
    assert step[LOW].var() < q[LOW].var() - 1e-6
    assert step[HIGH].var() > q[HIGH].var() + 1e-7
    assert torch.allclose(step[LOW].mean(), q[LOW].mean(), rtol=1e-12)
    assert torch.allclose(step[HIGH].mean(), q[HIGH].mean(), rtol=1e-12)
    assert torch.equal(step[8:32], q[8:32])


def test_literal_shape_contracts_to_a_point_for_point_masses() -> None:
    q, y = gaussian(), torch.zeros(1, dtype=F64)
    references = [tail.atom_tail_variance(y, SHARE, side) for side in ("lower", "upper")]
    assert [r.item() for r in references] == [0.0, 0.0]
    loss = tail.tail_shape(q, references[0], references[1], SHARE, SHARE)
    assert loss.item() == pytest.approx(q[LOW].var(correction=0).item())


def test_tail_variance_of_atoms() -> None:
    y = torch.arange(10.0)
    assert tail.atom_tail_variance(y, 0.3, "lower").item() == pytest.approx(2 / 3)
    assert tail.atom_tail_variance(y, 0.2, "upper").item() == pytest.approx(0.25)


# --- Eq 9 ---


@pytest.mark.parametrize("form", ["asymmetric", "unimodal", "smooth"])
@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10.0), shift=st.floats(-5.0, 5.0))
@CALM
def test_curvature_is_zero_for_lines_and_affine_invariant(form: str, seed: int, scale: float, shift: float) -> None:
    """Invariant 20, first half."""
    line = scale * midpoint_taus(M, dtype=F64) + shift
    assert tail.tail_curvature(line, SHARE, SHARE, form).item() == pytest.approx(0.0, abs=1e-9)  # type: ignore[arg-type]
    q = random_sorted(seed, 2)
    a, b = (tail.tail_curvature(x, SHARE, SHARE, form) for x in (scale * q + shift, q))  # type: ignore[arg-type]
    assert torch.allclose(a, b, rtol=1e-6, atol=1e-9)


def test_curvature_by_hand() -> None:
    """M = 10, sets of three: one triple each. q75 - q25 is 5 here."""
    q = torch.tensor([0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 8.5, 10.0], dtype=F64)
    iqr = float(tail.interquartile_range(q))
    low, high = 10 * (3.0 - 4.0 + 0.0) / iqr, 10 * (10.0 - 17.0 + 8.0) / iqr
    assert (low, high) == (-2.0, 2.0)
    assert tail.tail_curvature(q, 0.3, 0.3, "asymmetric").item() == pytest.approx(low**2)
    assert tail.tail_curvature(q, 0.3, 0.3, "unimodal").item() == 0.0  # below concave, above convex: bell-shaped
    assert tail.tail_curvature(q, 0.3, 0.3, "smooth").item() == pytest.approx(low**2 + high**2)
    mirrored = -q.flip(0)
    assert tail.tail_curvature(mirrored, 0.3, 0.3, "asymmetric").item() == pytest.approx(high**2)
    bent = torch.tensor([0.0, 0.5, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.5, 10.0], dtype=F64)
    width = float(tail.interquartile_range(bent))
    assert tail.tail_curvature(bent, 0.3, 0.3, "unimodal").item() == pytest.approx(10 * (1.0 + 1.0) / width)
    flat = torch.zeros(10, dtype=F64)
    assert tail.tail_curvature(flat, 0.3, 0.3).item() == 0.0


# --- Eq 10 ---


@given(seed=st.integers(0, 1000), heads=st.integers(1, 5))
@CALM
def test_consistency_equals_the_double_loop(seed: int, heads: int) -> None:
    """Invariant 21."""
    q = random_sorted(seed, 2, heads)
    pairs = [(h, g) for h in range(heads) for g in range(h)]
    slow = [sum(float((x[h] - x[g]).square().mean()) for h, g in pairs) / max(1, len(pairs)) for x in q]
    found = tail.head_consistency(q)
    assert found.tolist() == pytest.approx(slow, rel=1e-9, abs=1e-15)
    order = torch.randperm(heads, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(tail.head_consistency(q[:, order]), found, rtol=1e-9)
    assert tail.head_consistency(q[:, :1].expand(2, heads, M)).abs().max() < 1e-15
    if heads == 1:
        assert (found == 0).all() and (grad_of(tail.head_consistency, q) == 0).all()
    else:
        assert (found > 0).all()


# --- sets ---


def test_sets_that_are_too_small_say_so() -> None:
    q = gaussian(10)
    with pytest.raises(ValueError, match=r"holds 1 of 10 quantile levels, but at least 2 are needed"):
        tail.tail_variance(q, 0.1, "lower")
    with pytest.raises(ValueError, match="at least 3 are needed"):
        tail.tail_curvature(q, 0.2, 0.2)
    with pytest.raises(ValueError, match=r"must be in \(0, 0.5\)"):
        tail.tail_calibration(q, q, 0.5, "lower")


def test_only_q_gets_a_gradient() -> None:
    """Invariant 23."""
    q, y, reference = (random_sorted(i, 2).requires_grad_() for i in range(3))
    total = tail.mean_shift(q, y) + tail.mean_shift(q, y, "hinge")
    for side in ("lower", "upper"):
        for form in ("ru", "target_tail"):
            total = total + tail.tail_calibration(q, y, SHARE, side, form)
    low, high = (tail.tail_variance(reference, SHARE, side) for side in ("lower", "upper"))
    total = total + tail.tail_shape(q, low, high, SHARE, SHARE)
    total.sum().backward()
    assert y.grad is None and reference.grad is None
    assert q.grad is not None


# --- all terms in one pass ---


@pytest.mark.parametrize(("alpha", "beta"), [(0.2, 0.2), (0.1, 0.3)])
def test_cut_tails_change_no_term_and_no_gradient(alpha: float, beta: float) -> None:
    """Every function gives the same of a cut law, and the sum of all the same gradient."""
    q, y = random_sorted(0, 6, 3), random_sorted(1, 6, 1, num=30)

    def terms(law: Tensor | tail.Tails) -> list[Tensor]:
        references = tail.iqr_reference(law, alpha, "lower"), tail.iqr_reference(law, beta, "upper")
        return [
            tail.tail_calibration(law, y, alpha, "lower"),
            tail.tail_calibration(law, y, beta, "upper", "target_tail"),
            tail.mean_shift(law, y),
            tail.tail_shape(law, *references, alpha, beta, 0.5, 2.0),
            tail.tail_curvature(law, alpha, beta, "smooth"),
        ]

    def total(law: Tensor | tail.Tails) -> Tensor:
        return torch.stack([(i + 1.0) * term.sum() for i, term in enumerate(terms(law))]).sum()

    for whole, cut in zip(terms(q), terms(tail.cut_tails(q, alpha, beta)), strict=True):
        assert torch.allclose(whole, cut, rtol=1e-12)
    slope = grad_of(lambda x: total(tail.cut_tails(x, alpha, beta)), q)
    assert float(slope.abs().max()) > 0.0
    assert torch.allclose(slope, grad_of(total, q), rtol=1e-9, atol=1e-12)


def test_overlapping_cuts_add_up_and_no_set_is_empty() -> None:
    q = random_sorted(2, 2, num=3)
    cut = tail.cut_tails(q, 0.99, 0.99)
    assert (cut.low.shape[-1], cut.high.shape[-1]) == (3, 3)
    slope = grad_of(lambda x: sum(part.sum() for part in tail.cut_tails(x, 0.99, 0.99)[2:]), q)  # type: ignore[arg-type, return-value]
    assert torch.equal(slope, torch.full_like(q, 2.0))
    assert tail.cut_tails(q, 0.01, 0.01).low.tolist() == q[:, :1].tolist()


def test_a_law_cut_elsewhere_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a tail share of 0\.3 holds 12 quantiles, but 8 were cut"):
        tail.tail(tail.cut_tails(random_sorted(0, 2), SHARE, SHARE), 0.3, "lower")


# --- Eq 9 on blocks ---


def largest_slope(form: tail.CurvatureForm, num: int, share: float = 0.1) -> float:
    """Largest gradient on one quantile of a bent distribution whose neighbours are a little out of line."""
    g = torch.Generator().manual_seed(0)
    taus = (torch.arange(num, dtype=F64) + 0.5) / num
    q = (taus - 0.5).pow(3) * 4.0 + taus + 1e-4 * torch.randn(num, generator=g, dtype=F64)
    return float(grad_of(lambda x: tail.tail_curvature(x, share, share, form, 0.05), q.sort().values).abs().max())


def test_block_curvature_by_hand() -> None:
    """Lower tail of eight quantiles in four blocks of two, upper tail straight; the wanted sign of the bend only."""
    blocks = torch.tensor([0.0, 1.0, 1.5, 1.75], dtype=F64)  # second differences -0.5, -0.25: a concave lower tail
    low = torch.stack([blocks - 0.1, blocks + 0.1], dim=-1).flatten()
    q = torch.cat([low, 2.0 + 0.25 * torch.arange(12, dtype=F64)])
    width = max(1.0, float(tail.interquartile_range(q)))
    expected = ((0.5 / width) ** 2 / 2 + (0.25 / width) ** 2 / 2) / 2
    assert tail.tail_curvature(q, 0.4, 0.4, "blocks", 1.0).item() == pytest.approx(expected)
    assert tail.tail_curvature(-q.flip(0), 0.4, 0.4, "blocks", 1.0).item() == 0.0  # convex below, straight above
    straight = torch.linspace(-2.0, 3.0, 20, dtype=F64)
    assert tail.tail_curvature(straight, 0.4, 0.4, "blocks", 1.0).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("num", [200, 500])
def test_block_curvature_does_not_grow_with_the_number_of_quantiles(num: int) -> None:
    """Its gradient on one quantile falls with 1 / M, as that of Eq 3 does."""
    assert num * largest_slope("blocks", num) == pytest.approx(40 * largest_slope("blocks", 40), rel=0.5)


@pytest.mark.parametrize("form", ["asymmetric", "smooth"])
def test_curvature_of_single_neighbours_does_grow(form: tail.CurvatureForm) -> None:
    assert 500 * largest_slope(form, 500) > 5.0 * 40 * largest_slope(form, 40)


def test_block_curvature_is_linear_where_the_distribution_is_nearly_two_points() -> None:
    """Huber's function: a jump of any height in a tail pulls with the same force, not with one that grows with it."""
    heights = (4.0, 40.0, 400.0)
    slopes = []
    for height in heights:
        q = torch.cat([torch.zeros(3), torch.full((2,), height), height + torch.arange(15) * 0.01]).double()
        slopes.append(
            float(grad_of(lambda x: tail.tail_curvature(x, 0.4, 0.4, "blocks", 1.0), q.sort().values).abs().max())
        )
    assert slopes == pytest.approx([slopes[0]] * 3, rel=1e-6) and slopes[0] > 0.0
