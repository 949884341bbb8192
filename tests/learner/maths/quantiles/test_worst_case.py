"""Worst cases over sets of laws, against their definitions. Numbers in comments name the invariants."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner.maths.quantiles.worst_case import contaminated, worst_cvar, worst_kl, worst_tv

F64 = torch.float64
CALM = settings(max_examples=40, deadline=None)
ATOMS = st.lists(st.floats(-5.0, 5.0).map(lambda x: round(x, 2)), min_size=1, max_size=6)
SHARES = st.floats(0.0, 0.99)


def law(atoms: list[float]) -> Tensor:
    return torch.tensor(sorted(atoms), dtype=F64)


def least_over_vertices(z: Tensor, rho: float) -> float:
    """The linear programme min p.z over {p in the simplex, |p - u|_1 / 2 <= rho}, by trying every vertex.

    A vertex moves mass away from some atoms, all of it, from at most one atom in part, and puts it on one atom: more
    receivers or more partial givers would leave an edge to go along.
    """
    n, best = len(z), math.inf
    for receiver in range(n):
        for order in itertools.permutations(range(n)):
            p, left = [1.0 / n] * n, rho
            for giver in order:
                if giver != receiver:
                    moved = min(p[giver], left)
                    p[giver] -= moved
                    p[receiver] += moved
                    left -= moved
            best = min(best, sum(a * float(b) for a, b in zip(p, z, strict=True)))
    return best


@given(atoms=st.lists(st.floats(-5.0, 5.0), min_size=1, max_size=5), rho=SHARES)
@CALM
def test_tv_is_the_linear_programme(atoms: list[float], rho: float) -> None:
    """Invariant 26."""
    assert worst_tv(law(atoms), rho).item() == pytest.approx(least_over_vertices(law(atoms), rho), abs=1e-9)


@given(atoms=ATOMS, rho=SHARES)
@CALM
def test_no_law_within_total_variation_is_worse(atoms: list[float], rho: float) -> None:
    """Invariant 26, from the other side: random members of the ball, and the ball's order."""
    z = law(atoms)
    g = torch.Generator().manual_seed(len(atoms))
    q = torch.rand(200, len(z), generator=g, dtype=F64).log().abs().pow(3)
    q = q / q.sum(dim=-1, keepdim=True)
    u = torch.full_like(q, 1.0 / len(z))
    distance = (q - u).abs().sum(dim=-1, keepdim=True) / 2
    inside = u + (q - u) * (rho / distance.clamp(min=rho + 1e-12))  # shrunk to the ball
    assert worst_tv(z, rho).item() <= (inside @ z).min().item() + 1e-9
    assert z[0].item() - 1e-9 <= worst_tv(z, rho).item() <= z.mean().item() + 1e-9


@given(atoms=ATOMS, rho=SHARES)
@CALM
def test_tv_is_the_inner_problem_of_rfqi(atoms: list[float], rho: float) -> None:
    """2208.05129: -inf over eta of E[(eta - V)_+] - (1 - rho) * eta, for values whose least is 0."""
    z = law(atoms) - min(atoms)
    # convex and piecewise linear in eta: the least is at an atom
    least = min(float((eta - z).clamp(min=0).mean() - (1 - rho) * eta) for eta in z)
    assert worst_tv(z, rho).item() == pytest.approx(-least, abs=1e-9)


@given(atoms=ATOMS, alpha=st.floats(0.01, 1.0))
@CALM
def test_cvar_is_the_mean_of_the_lowest_mass(atoms: list[float], alpha: float) -> None:
    """Invariant 26: the infimum over densities of at most 1 / alpha (Rockafellar and Uryasev); at 1 the mean."""
    z = law(atoms)
    dual = max(float(v - (v - z).clamp(min=0).mean() / alpha) for v in z)
    assert worst_cvar(z, alpha).item() == pytest.approx(dual, abs=1e-9)
    assert torch.equal(worst_cvar(z, 1.0), z.mean())


@given(atoms=ATOMS, rho=st.floats(1e-4, 3.0))
@CALM
def test_kl_is_the_largest_value_of_the_dual(atoms: list[float], rho: float) -> None:
    """On a grid of b, and from the other side with random laws in the ball; never outside [lowest atom, mean]."""
    z = law(atoms)
    found = worst_kl(z, rho).item()
    b = torch.logspace(-6, 6, 4001, dtype=F64)[:, None]
    dual = -b[:, 0] * ((-(z - z[0]) / b).exp().mean(dim=-1).log() + rho) + z[0]
    assert max(dual.max().item(), z[0].item()) <= found + 1e-6
    assert found == pytest.approx(max(dual.max().item(), z[0].item()), abs=2e-2)
    assert z[0].item() - 1e-9 <= found <= z.mean().item() + 1e-9
    tilts = torch.linspace(0.0, 50.0, 500, dtype=F64)[:, None]
    p = torch.softmax(-tilts * z, dim=-1)
    kl = (p * (p * len(z)).clamp(min=1e-300).log()).sum(dim=-1)
    assert (p @ z)[kl <= rho].min().item() >= found - 1e-6


def test_kl_on_two_atoms_by_hand() -> None:
    """A law (p, 1 - p) on {0, 1} with KL exactly rho from (1/2, 1/2)."""
    for p in (0.6, 0.75, 0.9):
        rho = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
        assert worst_kl(torch.tensor([0.0, 1.0], dtype=F64), rho).item() == pytest.approx(1 - p, abs=1e-9)
    assert worst_kl(torch.tensor([3.0, 5.0], dtype=F64), 0.7).item() == pytest.approx(3.0)  # beyond log 2


@given(atoms=ATOMS)
@CALM
def test_neutral_settings_are_the_mean_bit_for_bit(atoms: list[float]) -> None:
    """Invariants 3 and 26."""
    z = law(atoms).float()
    for found in (worst_tv(z, 0.0), worst_kl(z, 0.0), worst_cvar(z, 1.0), contaminated(z.mean(), z[0], 0.0)):
        assert torch.equal(found, z.mean())


def test_each_row_by_itself_and_detached() -> None:
    g = torch.Generator().manual_seed(0)
    q = torch.randn(3, 4, 50, generator=g, dtype=F64).sort(-1).values.requires_grad_()
    for function, level in ((worst_cvar, 0.33), (worst_tv, 0.2), (worst_kl, 0.2)):
        whole = function(q, level)
        assert whole.shape == (3, 4) and not whole.requires_grad
        rows = torch.stack([torch.stack([function(row, level) for row in block]) for block in q])
        assert torch.allclose(whole, rows, rtol=1e-12)
        assert (whole < q.mean(dim=-1)).all()


@pytest.mark.parametrize("width", [1e-6, 0.5, 1.0, 3.0, 1e6])
def test_kl_does_not_depend_on_the_unit(width: float) -> None:
    """Two atoms at any distance: the same share of the way, down to the law within KL .1 by hand."""
    p = 0.7
    rho = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    rows = torch.tensor([[2.0, 2.0 + width], [-1.0, -1.0 + width]], dtype=F64)
    share = (worst_kl(rows, rho) - rows[:, 0]) / width
    assert share.tolist() == pytest.approx([1 - p] * 2, abs=1e-6)


def test_float64_laws_keep_their_digits() -> None:
    """Thirds have no short form: weights in float32 would be off by 1e-8."""
    z = torch.tensor([1.0, 4.0, 9.0], dtype=F64)
    assert worst_cvar(z, 0.9).item() == pytest.approx((1.0 / 3 + 4.0 / 3 + 9.0 * (0.9 - 2 / 3)) / 0.9, rel=1e-14)
