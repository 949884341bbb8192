"""What the critic losses converge to on a known law: the table (N(0, 1), point masses, M = 40)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.critic.terms.base import TokenView
from learner.algorithms.with_critic.dvpo import DVPO
from learner.maths.quantiles.quantiles import lower_cvar, midpoint_taus, upper_cvar
from tests.learner.algorithms.test_actor_critic import NEUTRAL

F64 = torch.float64


def learned(preset: str, options: dict[str, Any], samples: Tensor, steps: int = 800) -> Tensor:
    """The quantiles that the loss is minimal for, one head, by gradient descent with a falling rate; s = 1."""
    algorithm = build_algorithm(preset, {**options, "critic": {"num_heads": 1, "num_quantiles": 40}})
    assert isinstance(algorithm, DVPO)
    q = torch.linspace(-1.5, 1.5, 40, dtype=F64).requires_grad_()
    optimizer = torch.optim.Adam([q], lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        wide = q.sort().values.expand(len(samples), 1, 40)
        loss, _ = algorithm.side.token_losses(TokenView(wide, samples[:, None]))
        loss.mean().backward()
        optimizer.step()
        schedule.step()
    return q.detach().sort().values


@pytest.fixture(scope="module")
def samples() -> Tensor:
    quantiles: Tensor = torch.special.ndtri(midpoint_taus(101, dtype=F64))
    return quantiles


def summary(q: Tensor) -> tuple[float, float, float, float]:
    """Std of the lower and the upper tail, lower CVaR, mean."""
    return (
        q[:4].std(correction=0).item(),
        q[-4:].std(correction=0).item(),
        lower_cvar(q, 0.1).item(),
        q.mean().item(),
    )


@pytest.mark.slow
def test_plain_quantile_regression_learns_the_law(samples: Tensor) -> None:
    lower, upper, cvar, mean = summary(learned("dvpo", NEUTRAL, samples))
    assert (lower, upper) == pytest.approx((0.33, 0.32), abs=0.03)
    assert cvar == pytest.approx(-1.71, abs=0.03)
    assert mean == pytest.approx(0.0, abs=0.01)


@pytest.mark.slow
def test_sound_shapes_the_tails_and_keeps_mean_median_and_cvar(samples: Tensor) -> None:
    q = learned("dvpo", {}, samples)
    lower, upper, cvar, mean = summary(q)
    assert lower == pytest.approx(0.29, abs=0.03)
    assert upper == pytest.approx(0.38, abs=0.03)
    assert cvar == pytest.approx(-1.76, abs=0.03)
    assert mean == pytest.approx(0.0, abs=0.02)
    assert q[19:21].mean().item() == pytest.approx(0.0, abs=0.02)


@pytest.mark.slow
def test_literal_with_unit_weights_collapses_and_is_biased(samples: Tensor) -> None:
    """Without Eq 9, whose sharp valleys stop the optimiser on the way, down to nearly a point above the mean."""
    q = learned("dvpo-literal", {"curvature_coef": 0.0}, samples)
    lower, upper, cvar, mean = summary(q)
    assert (lower, upper) == pytest.approx((0.0, 0.0), abs=0.01)
    assert cvar == pytest.approx(0.0, abs=0.05)
    assert upper_cvar(q, 0.1).item() == pytest.approx(0.14, abs=0.06)
    assert mean == pytest.approx(0.14, abs=0.06)


def test_literal_prefers_a_point_to_the_true_law(samples: Tensor) -> None:
    """With every term, Eq 9 included: the loss at a point above the mean is below that at the law itself."""
    algorithm = build_algorithm("dvpo-literal", {"critic": {"num_heads": 1, "num_quantiles": 40}})
    assert isinstance(algorithm, DVPO)
    law = torch.special.ndtri(midpoint_taus(40, dtype=F64))
    losses = [
        algorithm.side.token_losses(TokenView(q.expand(101, 1, 40), samples[:, None]))[0].mean().item()
        for q in (law, 0.001 * law, 0.1 + 0.001 * law)
    ]
    assert losses[0] > losses[1] + 3.0 > losses[2] + 3.0
