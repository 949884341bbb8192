"""The default critic learns what it is shown, at the paper's own 200 quantiles (``benchmarks/critic_fit.py``)."""

from __future__ import annotations

import pytest

from benchmarks.critic_fit import CASES, explained_variance, learned_mean

STEPS = 1500
"""Optimiser steps, as many as the benchmark takes: with fewer the quantiles of p = .9 are still on their way up."""


@pytest.mark.slow
def test_sixty_updates_on_one_batch_explain_it() -> None:
    assert explained_variance({}, 200) >= 0.95


@pytest.mark.slow
def test_what_the_default_was_fails_the_same_test() -> None:
    assert explained_variance(CASES["with Eq 9 on neighbours"], 200) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("p", [0.02, 0.1, 0.2, 0.5, 0.8, 0.9])
def test_the_mean_of_a_binary_reward_is_its_probability(p: float) -> None:
    assert learned_mean({}, 200, p, STEPS) == pytest.approx(p, abs=0.02)


@pytest.mark.slow
def test_tail_curvature_on_blocks_may_be_switched_on() -> None:
    assert learned_mean({"curvature_coef": 0.01}, 200, 0.2, STEPS) == pytest.approx(0.2, abs=0.02)
