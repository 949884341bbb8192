"""GRPO: groups, their spread over ranks, aggregation. Numbers in comments name the invariants."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.records import CorrectedRewards, Denominators, Estimates, PolicyInputs
from learner.algorithms.without_critic.groups import (
    constant_groups,
    group_mean,
    group_std,
    known_spread,
    z_scored_advantages,
)
from learner.maths.collective import SingleProcess
from learner.metrics import to_floats
from tests.learner.oracles import on_ranks
from tests.learner.random_batches import counts, make_batch, make_old, policy_inputs, take

F64 = torch.float64
CALM = settings(max_examples=30, deadline=None)


@given(seed=st.integers(0, 1000), num=st.integers(1, 30), groups=st.integers(1, 8))
@CALM
def test_group_statistics_equal_the_loop(seed: int, num: int, groups: int) -> None:
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(num, generator=g, dtype=F64).round(decimals=1)
    ids = torch.randint(groups, (num,), generator=g) * 7 - 3
    mean, std, constant = group_mean(scores, ids), group_std(scores, ids), constant_groups(scores, ids)
    advantages = z_scored_advantages(scores, ids)
    for i in range(num):
        mates = scores[ids == ids[i]]
        assert float(mean[i]) == pytest.approx(float(mates.mean()), abs=1e-12)
        assert float(std[i]) == pytest.approx(float(mates.std(correction=0)), abs=1e-12)
        assert bool(constant[i]) == bool((mates == mates[0]).all())
    for name in ids.unique():
        assert float(advantages[ids == name].sum()) == pytest.approx(0.0, abs=1e-9)  # invariant 25


def test_estimates_are_divided_by_the_spread_that_true_scores_have() -> None:
    """For 0/1 truths estimated by their probabilities q, that is sqrt(p (1 - p)) with p the group's mean of q."""
    g = torch.Generator().manual_seed(3)
    q, ids = torch.rand(40, generator=g, dtype=F64), torch.arange(40) // 8
    found = z_scored_advantages(q, ids, eps=0.0) * known_spread(q, q * (1.0 - q), ids)
    p = group_mean(q, ids)
    torch.testing.assert_close(found, (q - p) / (p * (1.0 - p)).sqrt())
    assert torch.equal(known_spread(q, torch.zeros(40, dtype=F64), ids), torch.ones(40, dtype=F64))
    # Nothing known: all estimates alike, whose spread is none; and nothing known nor unknown is no division by 0.
    half = torch.full((4,), 0.5, dtype=F64)
    assert known_spread(half, half * half, torch.zeros(4, dtype=torch.int64)).tolist() == [0.0] * 4
    assert known_spread(half, 0.0 * half, torch.zeros(4, dtype=torch.int64)).tolist() == [1.0] * 4


@pytest.mark.parametrize(("preset", "shrinks"), [("grpo", True), ("qae", True), ("dr-grpo", False), ("rloo", False)])
def test_uncertain_scores_weigh_less_where_the_spread_is_divided_out(preset: str, shrinks: bool) -> None:
    batch = make_batch(0)
    algorithm = build_algorithm(preset)
    old = make_old(algorithm, batch, 1)
    plain = algorithm.estimate(batch, old, SingleProcess()).advantages
    variances = torch.linspace(0.1, 0.9, len(batch))
    algorithm.correct_rewards = lambda *_: CorrectedRewards(batch, score_variances=variances)  # type: ignore[method-assign]
    found = algorithm.estimate(batch, old, SingleProcess()).advantages
    share = known_spread(batch.scores, variances, batch.group_ids) if shrinks else torch.ones(len(batch))
    torch.testing.assert_close(found, plain * share[:, None])
    assert not shrinks or float(share.max()) < 1.0


def test_a_group_without_variance_gives_exactly_zero() -> None:
    """Invariant 25: also where the mean of equal float32 scores is not that score."""
    scores = torch.tensor([0.1] * 7 + [0.0, 1.0])
    ids = torch.tensor([0] * 7 + [1, 1])
    assert z_scored_advantages(scores, ids).tolist() == [0.0] * 7 + [
        pytest.approx(-1, abs=1e-5),
        pytest.approx(1, abs=1e-5),
    ]


def test_advantages_by_hand() -> None:
    batch = make_batch(0)
    algorithm = build_algorithm("grpo")
    found = algorithm.estimate(batch, make_old(algorithm, batch, 1), SingleProcess())
    expected = z_scored_advantages(batch.scores, batch.group_ids)
    assert torch.equal(found.advantages, torch.where(batch.action_mask, expected[:, None], 0.0))
    assert found.value_targets is None
    assert to_floats(found.metrics)["reward/zero_variance_frac"] == 0.0
    assert not algorithm.needs_critic and not algorithm.needs_reference and not algorithm.needs_old_logprobs


def test_groups_may_be_spread_over_ranks() -> None:
    batch = make_batch(1)
    algorithm = build_algorithm("grpo", {"whiten": "std", "adv_clip": 1.5})
    old = make_old(algorithm, batch, 2)
    whole = algorithm.estimate(batch, old, SingleProcess())
    rows = [torch.tensor([0, 5, 2]), torch.tensor([1, 3, 4, 6, 7])]
    parts = on_ranks(
        2, lambda world: algorithm.estimate(batch.rows(rows[world.rank]), take(old, rows[world.rank]), world)
    )
    for part, mine in zip(parts, rows, strict=True):
        assert torch.allclose(part.advantages, whole.advantages[mine], rtol=1e-12)
    assert float(whole.advantages.abs().max()) == 1.5


def test_kl_in_the_reward_lowers_the_score() -> None:
    batch = make_batch(2)
    algorithm = build_algorithm("grpo", {"kl_coef": 0.5, "kl_mode": "reward"})
    old = make_old(algorithm, batch, 3)
    assert algorithm.needs_old_logprobs and algorithm.needs_reference
    assert old.ref_logprobs is not None
    cost = 0.5 * (old.logprobs - old.ref_logprobs).sum(dim=1)
    expected = z_scored_advantages(batch.scores - cost, batch.group_ids)
    found = algorithm.estimate(batch, old, SingleProcess()).advantages
    assert torch.allclose(found, torch.where(batch.action_mask, expected[:, None], 0.0), rtol=1e-9)


@given(seed=st.integers(0, 200), cut=st.integers(0, 8))
@CALM
def test_loss_is_the_mean_over_trajectories_however_they_are_split(seed: int, cut: int) -> None:
    """Invariant 23, and 2402.03300 Eq 3 written out, with k3, entropy bonus and importance weights."""
    batch = make_batch(seed)
    algorithm = build_algorithm("grpo", {"kl_coef": 0.3, "entropy_coef": 0.2, "importance_cap": 1.02})
    old = make_old(algorithm, batch, seed + 1)
    estimates = algorithm.estimate(batch, old, SingleProcess())
    g = torch.Generator().manual_seed(seed)
    logprobs = old.logprobs + 0.3 * torch.randn(old.logprobs.shape, generator=g, dtype=F64)
    entropy = torch.rand(logprobs.shape, generator=g, dtype=F64)
    whole = algorithm.policy_loss(policy_inputs(algorithm, batch, old, logprobs, entropy), estimates, counts(batch))
    total = 0.0
    assert old.ref_logprobs is not None
    for i in range(8):
        keep = batch.action_mask[i]
        a, rho = estimates.advantages[i, keep], (logprobs - old.logprobs)[i, keep].exp()
        clip = torch.maximum(-rho * a, -rho.clamp(0.8, 1.2) * a)
        weight = (old.logprobs - batch.rollout_logprobs)[i, keep].exp().clamp(max=1.02)
        d = (old.ref_logprobs - logprobs)[i, keep]
        total += float((weight * clip + 0.3 * (d.exp() - d - 1) - 0.2 * entropy[i, keep]).mean()) / 8
    assert whole.loss.item() == pytest.approx(total, rel=1e-9)
    parts = 0.0
    for rows in (torch.arange(cut), torch.arange(cut, 8)):
        inputs = policy_inputs(algorithm, batch.rows(rows), take(old, rows), logprobs[rows], entropy[rows])
        parts += algorithm.policy_loss(inputs, estimates.rows(rows), counts(batch)).loss.item()
    assert parts == pytest.approx(total, rel=1e-9)


def test_metrics_of_the_policy_loss() -> None:
    """Two tokens with known ratios, and the gap between sampler and learner."""
    algorithm = build_algorithm("grpo", {"importance_cap": 1.5, "loss_aggregation": "token_mean"})
    mask = torch.tensor([[False, True, True]])
    ln = torch.tensor([[0.0, 2.0, 0.5]], dtype=F64).log().masked_fill(~mask, 0.0)  # current over old
    old = torch.zeros(1, 3, dtype=F64)
    rollout = torch.tensor([[0.0, -1.0, 0.1]], dtype=F64)
    estimates = Estimates(torch.tensor([[0.0, 1.0, 1.0]], dtype=F64))
    found = algorithm.policy_loss(PolicyInputs(ln, old, rollout, None, None, mask), estimates, Denominators(2.0, 1.0))
    values = to_floats(found.metrics)
    assert values["policy/clip_frac"] == 0.5
    assert values["policy/ratio_max"] == pytest.approx(2.0)
    assert values["policy/approx_kl"] == pytest.approx((2 - 1 - 0.6931471805599453 + 0.5 - 1 + 0.6931471805599453) / 2)
    d = torch.tensor([1.0, -0.1], dtype=F64)
    assert values["policy/sampler_kl"] == pytest.approx(float((d.exp() - d - 1).mean()))
    assert values["policy/sampler_logprob_gap_max"] == pytest.approx(1.0)
    assert values["policy/sampler_logprob_gap_p50"] == pytest.approx(1.0)
    assert values["policy/importance_truncated_frac"] == 0.5
    w = torch.tensor([1.5, float(torch.tensor(-0.1, dtype=F64).exp())], dtype=F64)
    assert values["policy/importance_ess_frac"] == pytest.approx(float(w.sum() ** 2 / (2 * w.square().sum())))
    assert found.loss.item() == pytest.approx(float((w * torch.tensor([-1.2, -0.5], dtype=F64)).sum()) / 2)
