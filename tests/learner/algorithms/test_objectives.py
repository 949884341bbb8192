"""Policy objectives in the clip's place, and the two stages of the entropy bonus (invariant 28)."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.clipped_policy import ClippedPolicy
from learner.algorithms.objectives.bapo import BalancedClip, positive_share
from learner.maths.collective import SingleProcess
from learner.maths.losses.policy import clipped_policy_loss
from learner.metrics import to_floats
from learner.update.learner import Learner
from rollout.component import UserError
from tests.learner.oracles import grad_of, on_ranks
from tests.learner.plain_learner import random_samples
from tests.learner.random_batches import counts, make_batch, make_old, policy_inputs, take

F64 = torch.float64
CALM = settings(max_examples=50, deadline=None)


def tokens(seed: int, num: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Advantages, ratios around 1 and sampler probabilities."""
    g = torch.Generator().manual_seed(seed)
    shift = torch.rand(1, generator=g, dtype=F64) * 2 - 1.5
    advantages = torch.randn(num, generator=g, dtype=F64) + shift
    return advantages, (0.8 * torch.randn(num, generator=g, dtype=F64)).exp(), torch.rand(num, generator=g, dtype=F64)


@given(seed=st.integers(0, 500), low=st.floats(0.0, 1.0), high=st.floats(1.0, 4.0))
@CALM
def test_positive_share_equals_the_loop(seed: int, low: float, high: float) -> None:
    positive = negative = 0.0
    for a, rho, w in zip(*(x.tolist() for x in tokens(seed)), strict=True):
        if a > 0 and rho < high:
            positive += w * rho * a
        elif a < 0 and rho > low:
            negative += w * rho * -a
    expected = positive / (positive + negative) if negative else 1.0
    assert positive_share(*tokens(seed), low, high) == pytest.approx(expected, rel=1e-9)


@given(seed=st.integers(0, 500), target=st.floats(0.0, 1.0))
@CALM
def test_invariant_28_bapo_bounds_stay_in_range_and_the_share_is_monotone_in_both(seed: int, target: float) -> None:
    columns = tokens(seed)
    lows, highs = torch.linspace(0.0, 1.0, 21).tolist(), torch.linspace(1.0, 4.0, 21).tolist()
    for grid in ([(low, 1.5) for low in lows], [(0.7, high) for high in highs]):
        shares = [positive_share(*columns, *bounds) for bounds in grid]
        assert all(a <= b + 1e-12 for a, b in pairwise(shares))
    objective = BalancedClip(BalancedClip.Config(positive_share=target))
    low, high, share = objective.bounds(*columns)
    assert 0.6 <= low <= 0.9 and 1.2 <= high <= 3.0
    assert share == positive_share(*columns, low, high)
    assert share >= target or (low, high) == (0.9, 3.0)
    assert low == 0.6 or high == 3.0  # the upper bound goes first
    if low > 0.6:  # no further than needed
        assert positive_share(*columns, low - 0.02, high) < target
    elif high > 1.2:
        assert positive_share(*columns, low, high - 0.05) < target


@pytest.mark.parametrize("name", ["grpo", "ppo", "dvpo", "reinforce_pp", "reinforce"])
def test_bapo_clips_the_ratio_over_the_sampler_with_global_bounds(name: str) -> None:
    options = {"critic": {"num_heads": 2, "num_quantiles": 40}} if name == "dvpo" else {}
    algorithm = build_algorithm(name, {**options, "policy_objective": {"type": "bapo", "positive_share": 0.9}})
    batch = make_batch(1)
    old = make_old(algorithm, batch, 2)
    assert algorithm.needs_old_logprobs
    estimates = algorithm.estimate(batch, old, SingleProcess())
    values = to_floats(estimates.metrics)
    low, high = values["policy/bapo_clip_low"], values["policy/bapo_clip_high"]
    mask = batch.action_mask
    ratios = (old.logprobs - batch.rollout_logprobs)[mask].exp()
    found = BalancedClip(BalancedClip.Config(positive_share=0.9)).bounds(
        estimates.advantages[mask], ratios, batch.rollout_logprobs[mask].exp()
    )
    assert (low, high) == found[:2]
    logprobs = old.logprobs + 0.3 * torch.randn(old.logprobs.shape, generator=torch.Generator().manual_seed(0))
    inputs = policy_inputs(algorithm, batch, old, logprobs)
    expected = clipped_policy_loss(logprobs, batch.rollout_logprobs, estimates.advantages, mask, 1 - low, high - 1).loss
    assert isinstance(algorithm, ClippedPolicy)
    whole = algorithm.policy_loss(inputs, estimates, counts(batch)).loss.item()
    assert whole == pytest.approx(algorithm.aggregate(expected, mask, counts(batch)).item(), rel=1e-9)
    rows = [torch.tensor([0, 5, 2]), torch.tensor([1, 3, 4, 6, 7])]
    parts = on_ranks(
        2,
        lambda world: (
            build_algorithm(name, {**options, "policy_objective": {"type": "bapo", "positive_share": 0.9}})
            .estimate(batch.rows(rows[world.rank]), take(old, rows[world.rank]), world)
            .metrics
        ),
    )
    for part in parts:
        assert to_floats(part)["policy/bapo_clip_low"] == pytest.approx(low)
        assert to_floats(part)["policy/bapo_clip_high"] == pytest.approx(high)


@given(seed=st.integers(0, 200))
@CALM
def test_invariant_28_the_gradient_at_ratio_1_is_minus_a_grad_logp(seed: int) -> None:
    advantages, _, _ = tokens(seed)
    logp = torch.zeros(1, 40, dtype=F64)
    mask = torch.ones(1, 40, dtype=torch.bool)
    grad = grad_of(lambda x: clipped_policy_loss(x, x.detach(), advantages[None], mask, 0.2, 0.2, 3.0).loss, logp)
    torch.testing.assert_close(grad[0], -advantages, rtol=1e-9, atol=0)


def test_apa_is_the_squared_distance_to_the_shifted_reference() -> None:
    algorithm = build_algorithm("apa", {"policy_objective": {"kl_scale": 0.5}, "importance_cap": None})
    assert algorithm.needs_reference and algorithm.needs_critic
    batch = make_batch(3)
    old = make_old(algorithm, batch, 4)
    estimates = algorithm.estimate(batch, old, SingleProcess())
    assert old.ref_logprobs is not None
    mask, n = batch.action_mask, counts(batch).num_action_tokens
    target = old.ref_logprobs + estimates.advantages / 0.5

    def loss(logprobs: Tensor) -> Tensor:
        return algorithm.policy_loss(policy_inputs(algorithm, batch, old, logprobs), estimates, counts(batch)).loss

    gap = torch.where(mask, old.logprobs - target, 0.0)
    assert loss(old.logprobs).item() == pytest.approx(float(gap.square().sum()) / n, rel=1e-9)
    torch.testing.assert_close(grad_of(loss, old.logprobs), 2 * gap / n, rtol=1e-9, atol=1e-12)
    assert loss(target).item() == pytest.approx(0.0, abs=1e-12)
    poisoned = torch.where(mask, old.logprobs, torch.nan)
    assert loss(poisoned).item() == pytest.approx(loss(old.logprobs).item(), rel=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy_objective": "bappo"}, "did you mean 'bapo'?"),
        ({"policy_objective": "bapo", "clip_ratio_high": 0.28}, "algorithm.clip_ratio_high has no effect with policy"),
        ({"policy_objective": "bapo", "importance_cap": 5.0}, "algorithm.importance_cap has no effect"),
        ({"policy_objective": {"type": "bapo", "low_start": 0.95}}, "low_start must not exceed low_max"),
        ({"policy_objective": {"type": "apa", "kl_scale": 0}}, "algorithm.policy_objective.kl_scale"),
    ],
)
def test_mistakes_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        build_algorithm("grpo", options)
    assert message in str(caught.value)


def test_two_stages_of_entropy() -> None:
    algorithm = build_algorithm("two-stage-entropy")
    assert algorithm.needs_entropy
    coefs = []
    for update in range(10):
        algorithm.begin_update(update, 10)
        coefs.append(algorithm.entropy_coef)
    assert coefs == [1e-3] * 8 + [-1e-3] * 2
    assert build_algorithm("grpo", {"entropy_coef_late": -0.1}).needs_entropy
    constant = build_algorithm("grpo", {"entropy_coef": 0.2})
    constant.begin_update(9, 10)
    assert constant.entropy_coef == 0.2


def test_the_learner_says_how_far_training_is(make_learner: Callable[..., Learner]) -> None:
    """Late in training the gradient of the entropy term turns round, so policies drift apart the other way."""
    losses = []
    for update in (0, 9):
        learner = make_learner("grpo", {"entropy_coef": 5.0, "entropy_coef_late": -5.0}, num_updates=10)
        metrics = to_floats(learner.update(random_samples(8), update).metrics)
        losses.append((metrics["policy/loss"], metrics["policy/entropy"]))
    (early, _), (late, entropy) = losses
    assert late - early == pytest.approx(10.0 * entropy, rel=0.2)  # per trajectory here, per token in the metric
