"""Masked sums, means and whitening. Numbers in comments name the invariants."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner.masking import location_scale, masked, masked_sum, sequence_mean, token_mean, whiten
from tests.learner.oracles import grad_of

F64 = torch.float64
CALM = settings(max_examples=30, deadline=None)


def batch(seed: int, rows: int = 5, seq: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn((rows, seq), generator=g, dtype=F64), torch.rand((rows, seq), generator=g) < 0.6


def test_numbers() -> None:
    x = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    mask = torch.tensor([[True, False, True], [False, True, False]])
    assert masked(x, mask).tolist() == [[1.0, 0.0, 4.0], [0.0, 16.0, 0.0]]
    assert masked(x[..., None], mask)[1, 1].tolist() == [16.0]
    assert masked_sum(x, mask).item() == 21.0
    assert token_mean(x, mask, 6.0).item() == 3.5
    assert token_mean(x, mask, 0.0).item() == 21.0
    assert sequence_mean(x, mask, 2.0).item() == (2.5 + 16.0) / 2


@given(seed=st.integers(0, 1000), cut=st.integers(0, 5))
@CALM
def test_means_do_not_depend_on_the_split(seed: int, cut: int) -> None:
    """Invariant 23: the parts of a batch add up to the whole, with the global denominators."""
    x, mask = batch(seed)
    tokens = float(mask.sum())
    for mean, count in ((token_mean, tokens), (sequence_mean, 5.0)):
        parts = mean(x[:cut], mask[:cut], count) + mean(x[cut:], mask[cut:], count)
        assert torch.allclose(parts, mean(x, mask, count), rtol=1e-12)
    assert torch.allclose(token_mean(x, mask, tokens), x[mask].sum() / max(1.0, tokens), rtol=1e-12)
    rows = [x[i, mask[i]].mean() for i in range(5) if mask[i].any()]
    assert torch.allclose(sequence_mean(x, mask, 5.0), sum(rows, torch.zeros((), dtype=F64)) / 5, rtol=1e-12)


def test_nothing_leaks_from_masked_positions() -> None:
    """Invariant 22: values, gradients; an all-masked batch gives 0 with zero gradient."""
    x, mask = batch(0)
    dirty = x.masked_fill(~mask, torch.nan)

    def slope(mean: Callable[[Tensor, Tensor, float], Tensor], where: Tensor, count: float) -> Tensor:
        return grad_of(lambda v: mean(v, where, count), dirty)

    for mean in (token_mean, sequence_mean):
        assert torch.equal(mean(dirty, mask, 3.0), mean(x, mask, 3.0))
        grad = slope(mean, mask, 3.0)
        assert (grad[~mask] == 0).all()
        assert grad.isfinite().all()
        nobody = torch.zeros_like(mask)
        assert mean(dirty, nobody, 0.0).item() == 0.0
        assert (slope(mean, nobody, 0.0) == 0).all()
    assert whiten(dirty, mask).isfinite().all()


@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10.0), shift=st.floats(-5.0, 5.0))
@CALM
def test_whitening(seed: int, scale: float, shift: float) -> None:
    x, mask = batch(seed, rows=8)
    x = scale * x + shift
    done = whiten(x, mask)
    assert abs(float(done[mask].mean())) < 1e-9
    assert float(done[mask].std(correction=0)) == pytest.approx(1.0, abs=1e-6)
    assert (done[~mask] == 0).all()
    rms = x[mask].square().mean().sqrt()
    assert torch.allclose(whiten(x, mask, "scale")[mask], x[mask] / rms, rtol=1e-6)
    assert torch.equal(whiten(x, mask, "none")[mask], x[mask])
    robust = whiten(x, mask, "mad")[mask]
    assert abs(float(robust.median())) <= float(robust.abs().median()) + 1e-9
    n = robust.numel()
    ordered = robust.sort().values
    assert float((ordered[(n - 1) // 2] + ordered[n // 2]) / 2) == pytest.approx(0.0, abs=1e-9)
    assert float(torch.quantile(robust.abs(), 0.5)) == pytest.approx(1 / 1.4826022185056018, rel=1e-6)


def test_mad_ignores_an_outlier_and_falls_back_when_most_are_equal() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]], dtype=F64)
    mask = torch.ones_like(x, dtype=torch.bool)
    wild = x.clone()
    wild[0, 4] = 1e6
    assert torch.equal(whiten(x, mask, "mad")[:, :4], whiten(wild, mask, "mad")[:, :4])
    flat = torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=F64)
    assert torch.equal(whiten(flat, mask[:, :4], "mad"), whiten(flat, mask[:, :4], "std"))


def test_population_is_that_of_all_ranks() -> None:
    x, mask = batch(1)
    everything = torch.cat([x[mask], torch.tensor([50.0], dtype=F64)])
    expected = (x - everything.mean()) / everything.std(correction=0)
    assert torch.allclose(whiten(x, mask, population=everything)[mask], expected[mask], rtol=1e-6)


def test_empty_and_unknown() -> None:
    location, scale = location_scale(torch.zeros(0), "std")
    assert (location.item(), scale.item()) == (0.0, 1.0)
    with pytest.raises(ValueError, match="valid: none, std, scale, mad"):
        location_scale(torch.ones(3), "minmax")  # type: ignore[arg-type]
