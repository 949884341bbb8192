"""Linear read-outs of a quantile function, by hand."""

from __future__ import annotations

import pytest
import torch

from learner.maths.quantiles.readouts import cvar_blend_weights, read_out, spectral_weights, trimmed_weights

F64 = torch.float64


def test_trimmed_weights_cut_atoms_in_part() -> None:
    """Of five atoms of mass 1/5 the lowest .3 and the highest .1 go: none, half, all, all, half of their masses."""
    expected = [0.0, 0.1 / 0.6, 0.2 / 0.6, 0.2 / 0.6, 0.1 / 0.6]
    assert trimmed_weights(5, 0.3, 0.1).tolist() == pytest.approx(expected, abs=1e-12)


def test_spectral_weights_fall_by_the_same_factor_from_level_to_level() -> None:
    weights = spectral_weights(4, 2.0)
    assert weights.dtype == F64
    assert float(weights.sum()) == pytest.approx(1.0, abs=1e-12)
    assert (weights[1:] / weights[:-1]).tolist() == pytest.approx([2.718281828459045**-0.5] * 3, rel=1e-12)


def test_cvar_blend_by_hand() -> None:
    """Ten atoms; .3 of the lowest fifth, .5 of the highest three tenths, the rest of the mean."""
    weights = cvar_blend_weights(10, 0.3, 0.5, 0.2, 0.3)
    expected = [0.02 + 0.15] * 2 + [0.02] * 5 + [0.02 + 0.5 / 3] * 3
    assert weights.tolist() == pytest.approx(expected, abs=1e-12)
    values = torch.arange(10, dtype=F64)
    assert float(read_out(values, weights)) == pytest.approx(0.2 * 4.5 + 0.3 * 0.5 + 0.5 * 8.0, abs=1e-12)


def test_shares_that_are_no_blend_are_refused() -> None:
    for lower, upper in ((-0.1, 0.5), (0.5, -0.1), (0.7, 0.5), (0.5, 0.7)):
        with pytest.raises(ValueError, match=r"need lower, upper >= 0 and lower \+ upper <= 1"):
            cvar_blend_weights(10, lower, upper, 0.2, 0.2)
    for lower, upper in ((0.0, 0.0), (0.5, 0.5), (1.0, 0.0), (0.0, 1.0)):
        assert float(cvar_blend_weights(10, lower, upper, 0.2, 0.2).sum()) == pytest.approx(1.0)
