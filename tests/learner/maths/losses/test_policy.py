"""Clipped policy loss, importance weights, KL estimators. Numbers in comments name the invariants."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner.maths.losses.kl import kl_estimate, penalised_rewards
from learner.maths.losses.policy import clipped_policy_loss, truncated_importance_weights
from tests.learner.oracles import grad_of

F64 = torch.float64
CALM = settings(max_examples=50, deadline=None)


def one(logp: float, old: float, advantage: float, dual: float | None = None) -> tuple[object, object, bool]:
    """Loss, gradient and clip flag of a single token with bounds .2 and .28, to be compared with numbers or ranges."""
    x = torch.tensor([[logp]], dtype=F64, requires_grad=True)
    mask = torch.tensor([[True]])
    args = (torch.tensor([[old]], dtype=F64), torch.tensor([[advantage]], dtype=F64), mask, 0.2, 0.28, dual)
    found = clipped_policy_loss(x, *args)
    found.loss.sum().backward()
    assert x.grad is not None
    return found.loss.item(), x.grad.item(), bool(found.clipped.item())


def test_every_branch_by_hand() -> None:
    assert one(math.log(1.1), 0.0, 2.0) == (pytest.approx(-2.2), pytest.approx(-2.2), False)
    assert one(math.log(1.5), 0.0, 2.0) == (pytest.approx(-2.56), 0.0, True)  # clipped at 1.28
    assert one(math.log(0.5), 0.0, 2.0) == (pytest.approx(-1.0), pytest.approx(-1.0), False)  # not clipped below 1
    assert one(math.log(0.5), 0.0, -2.0) == (pytest.approx(1.6), 0.0, True)  # clipped at .8
    assert one(math.log(1.5), 0.0, -2.0) == (pytest.approx(3.0), pytest.approx(3.0), False)
    assert one(math.log(5.0), 0.0, -2.0) == (pytest.approx(10.0), pytest.approx(10.0), False)
    assert one(math.log(5.0), 0.0, -2.0, 3.0) == (pytest.approx(6.0), 0.0, True)  # dual clip: at most 3 * |A|
    assert one(math.log(5.0), 0.0, 2.0, 3.0) == (pytest.approx(-2.56), 0.0, True)


@given(seed=st.integers(0, 1000), dual=st.sampled_from([None, 1.5, 3.0]))
@CALM
def test_gradient_at_ratio_one_is_the_policy_gradient(seed: int, dual: float | None) -> None:
    """Invariant 28: -A * grad logp, with old_logprobs given as ``logprobs.detach()`` too."""
    g = torch.Generator().manual_seed(seed)
    advantages = torch.randn((3, 4), generator=g, dtype=F64)
    logprobs = -torch.rand((3, 4), generator=g, dtype=F64)
    mask = torch.rand((3, 4), generator=g) < 0.7
    expected = torch.where(mask, -advantages, 0.0)

    def loss(x: Tensor, old: Tensor | None) -> Tensor:
        return clipped_policy_loss(x, x.detach() if old is None else old, advantages, mask, 0.2, 0.2, dual).loss

    for old in (logprobs.clone(), None):
        grad = grad_of(partial(loss, old=old), logprobs)
        assert torch.allclose(grad, expected, rtol=1e-9, atol=1e-12)


@given(seed=st.integers(0, 1000), low=st.floats(0.0, 1.0), high=st.floats(0.0, 2.0), dual=st.floats(1.1, 5.0))
@CALM
def test_equals_the_obvious_loop(seed: int, low: float, high: float, dual: float) -> None:
    g = torch.Generator().manual_seed(seed)
    new, old, advantages = (torch.randn((2, 5), generator=g, dtype=F64) for _ in range(3))
    mask = torch.rand((2, 5), generator=g) < 0.7
    found = clipped_policy_loss(new, old, advantages, mask, low, high, dual)
    for b in range(2):
        for t in range(5):
            a, rho = float(advantages[b, t]), math.exp(float(new[b, t] - old[b, t]))
            loss = max(-rho * a, -min(max(rho, 1 - low), 1 + high) * a)
            loss = min(loss, -dual * a) if a < 0 else loss
            assert float(found.loss[b, t]) == pytest.approx(loss if mask[b, t] else 0.0, rel=1e-9, abs=1e-12)


def test_nothing_leaks_and_nothing_overflows() -> None:
    """Invariant 22, and a token that the current policy makes impossible or certain."""
    mask = torch.tensor([[True, False, True]])
    new = torch.tensor([[-1.0, torch.nan, 300.0]])
    old = torch.tensor([[-1.0, torch.inf, -300.0]])

    def loss(x: Tensor, advantages: Tensor) -> Tensor:
        return clipped_policy_loss(x, old, advantages, mask, 0.2, 0.2).loss

    for advantage in (1.0, -1.0):
        advantages = torch.tensor([[advantage, torch.nan, advantage]])
        found = clipped_policy_loss(new, old, advantages, mask, 0.2, 0.2)
        grad = grad_of(partial(loss, advantages=advantages), new)
        assert found.loss.isfinite().all() and grad.isfinite().all()
        assert grad[0, 1] == 0 and found.loss[0, 1] == 0 and found.ratio[0, 1] == 1 and not found.clipped[0, 1]
    nobody = torch.zeros_like(mask)
    assert (grad_of(lambda x: clipped_policy_loss(x, old, new, nobody, 0.2, 0.2).loss, new) == 0).all()
    with pytest.raises(ValueError, match="dual_clip"):
        clipped_policy_loss(new, old, new, mask, 0.2, 0.2, 1.0)


def test_no_gradient_into_old_values_or_advantages() -> None:
    """Invariant 23."""
    new, old, advantages = (torch.zeros(1, 2, requires_grad=True) for _ in range(3))
    clipped_policy_loss(new, old, advantages, torch.ones(1, 2, dtype=torch.bool), 0.2, 0.2).loss.sum().backward()
    assert new.grad is not None
    assert old.grad is None and advantages.grad is None


def test_importance_weights() -> None:
    old = torch.tensor([[0.0, -1.0, torch.nan, 0.0, 0.0]], requires_grad=True)
    rollout = torch.tensor([[-0.5, 0.0, 0.0, -9.0, -1e6]])
    mask = torch.tensor([[True, True, False, True, True]])
    weights = truncated_importance_weights(old, rollout, mask, 2.0)
    assert weights.tolist() == [[pytest.approx(math.exp(0.5)), pytest.approx(math.exp(-1.0)), 1.0, 2.0, 2.0]]
    assert not weights.requires_grad
    with pytest.raises(ValueError, match="cap"):
        truncated_importance_weights(old, rollout, mask, 0.0)


def test_truncated_weights_make_the_gradient_unbiased() -> None:
    """A sampler with other probabilities: the weighted gradient is that under the learner's own distribution."""
    learner = torch.log_softmax(torch.tensor([0.3, -0.2, 0.5, 0.0], dtype=F64), -1)
    sampler = torch.log_softmax(torch.tensor([0.1, 0.2, 0.4, -0.3], dtype=F64), -1)
    advantages = torch.tensor([[1.0, -2.0, 0.5, 3.0]], dtype=F64)
    mask = torch.ones(1, 4, dtype=torch.bool)
    weights = truncated_importance_weights(learner[None], sampler[None], mask, 10.0)
    grad = grad_of(lambda x: clipped_policy_loss(x, learner[None], advantages, mask, 0.2, 0.2).loss, learner[None])
    assert torch.allclose((sampler.exp() * weights * grad).sum(), (learner.exp() * -advantages).sum(), rtol=1e-9)


def test_kl_estimators() -> None:
    """Expectations over the policy: k1 and k3 are KL(policy || reference); k3 and k2 are never negative."""
    policy = torch.log_softmax(torch.tensor([[0.3, -0.2, 0.5]], dtype=F64), -1)
    reference = torch.log_softmax(torch.tensor([[0.0, 0.4, -0.1]], dtype=F64), -1)
    mask = torch.ones(1, 3, dtype=torch.bool)
    exact = float((policy.exp() * (policy - reference)).sum())
    for name in ("k1", "k3"):
        found = kl_estimate(policy, reference, mask, name)
        assert float((policy.exp() * found).sum()) == pytest.approx(exact, rel=1e-12)
    d = reference - policy
    assert torch.allclose(kl_estimate(policy, reference, mask, "k2"), d.square() / 2)
    assert torch.allclose(kl_estimate(policy, reference, mask, "k3"), d.exp() - d - 1)
    assert (kl_estimate(policy, reference, mask, "k3") >= 0).all()
    assert torch.allclose(grad_of(lambda x: kl_estimate(x, reference, mask, "k3"), policy), 1 - d.exp())
    dirty = torch.where(torch.tensor([[True, False, True]]), reference, torch.nan)
    masked_k3 = kl_estimate(policy, dirty, torch.tensor([[True, False, True]]), "k3")
    assert masked_k3[0, 1] == 0 and masked_k3.isfinite().all()
    assert kl_estimate(policy, reference - 1e6, mask, "k3").isfinite().all()
    with pytest.raises(ValueError, match="k1, k2, k3"):
        kl_estimate(policy, reference, mask, "k4")  # type: ignore[arg-type]


def test_kl_in_the_reward() -> None:
    rewards = torch.tensor([[0.5, 0.0, 1.0]])
    old, reference = torch.tensor([[9.0, -1.0, -2.0]]), torch.tensor([[9.5, -1.5, -1.0]])
    mask = torch.tensor([[False, True, True]])
    found = penalised_rewards(rewards, old, reference, mask, 0.1)
    assert found.tolist() == [[0.5, pytest.approx(-0.05), pytest.approx(1.1)]]


def test_k3_is_linear_where_the_reference_is_far_away_on_either_side() -> None:
    """Past e^20 the log-ratio is that of the bound, without a gradient; k3 is the form that is taken unasked."""
    policy = torch.tensor([[-1.0, -1.0]], dtype=F64)
    reference, mask = torch.tensor([[-1e6, 1e6]], dtype=F64), torch.ones(1, 2, dtype=torch.bool)
    expected = [math.exp(-20.0) + 20.0 - 1.0, math.exp(20.0) - 20.0 - 1.0]
    assert kl_estimate(policy, reference, mask)[0].tolist() == pytest.approx(expected, rel=1e-12)
    assert grad_of(lambda x: kl_estimate(x, reference, mask), policy).tolist() == [[0.0, 0.0]]


def test_no_gradient_into_the_reference_nor_out_of_the_penalised_reward() -> None:
    """Invariant 23."""
    mask = torch.ones(1, 2, dtype=torch.bool)
    policy, reference = (torch.tensor([[-0.5, level]], dtype=F64, requires_grad=True) for level in (-0.2, -0.9))
    for estimator in ("k1", "k2", "k3"):
        kl_estimate(policy, reference, mask, estimator).sum().backward()
    assert policy.grad is not None and reference.grad is None
    assert not penalised_rewards(torch.zeros(1, 2, dtype=F64), policy, reference, mask, 0.1).requires_grad
