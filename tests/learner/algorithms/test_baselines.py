"""Critic-free baselines and options of PPO: Dr.GRPO, RLOO, QAE, REINFORCE++, PPO-max, VAPO. Numbers name invariants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner.algorithms.actor_critic import length_adaptive_lam
from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.records import CorrectedRewards
from learner.algorithms.without_critic.groups import group_quantile
from learner.batch import TrainBatch
from learner.maths.collective import SingleProcess
from learner.maths.returns import gae
from learner.metrics import to_floats
from tests.learner.oracles import on_ranks
from tests.learner.random_batches import counts, make_batch, make_old, policy_inputs, take

F64 = torch.float64
CALM = settings(max_examples=30, deadline=None)
GROUPED = ["grpo", "dr-grpo", "rloo", "qae", "reinforce-pp-baseline"]


def grouped(seed: int, num: int, groups: int, digits: int = 1) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(num, generator=g, dtype=F64).round(decimals=digits)
    return scores, torch.randint(groups, (num,), generator=g) * 3 - 2


def advantages(name: str, scores: Tensor, ids: Tensor, options: dict[str, Any] | None = None) -> Tensor:
    """Per-trajectory advantages, read off a batch of one-token responses without whitening."""
    whole = make_batch(0, rows=len(scores), seq=7)
    mask = torch.zeros_like(whole.action_mask)
    mask[:, 3] = True
    plain = CorrectedRewards(replace(whole, action_mask=mask, group_ids=ids, rewards=torch.zeros_like(whole.rewards)))
    batch = plain.with_scores(scores, {}).batch
    algorithm = build_algorithm(name, {"whiten": "none", "kl_coef": 0.0, **(options or {})})
    return algorithm.estimate(batch, make_old(algorithm, batch, 0), SingleProcess()).advantages[:, 3]


@given(seed=st.integers(0, 1000), num=st.integers(1, 20), groups=st.integers(1, 6))
@CALM
def test_group_baselines_equal_the_loop(seed: int, num: int, groups: int) -> None:
    """Invariant 25: sums are 0, RLOO = G / (G - 1) * Dr.GRPO; and QAE's quantile by sorting."""
    scores, ids = grouped(seed, num, groups)
    found = {name: advantages(name, scores, ids) for name in GROUPED}
    for i in range(num):
        mates = scores[ids == ids[i]]
        size = len(mates)
        others = (mates.sum() - scores[i]) / (size - 1) if size > 1 else scores[i]
        assert found["dr-grpo"][i].item() == pytest.approx(float(scores[i] - mates.mean()), abs=1e-12)
        assert found["rloo"][i].item() == pytest.approx(float(scores[i] - others), abs=1e-12)
        assert found["reinforce-pp-baseline"][i].item() == found["dr-grpo"][i].item()
        quantile = sorted(mates.tolist())[-(-2 * size // 5) - 1]  # ceil(0.4 G)-th smallest
        spread = float(mates.std(correction=0))
        expected = (float(scores[i]) - quantile) / (spread + 1e-6) if spread > 1e-9 else 0.0
        assert found["qae"][i].item() == pytest.approx(expected, abs=1e-9)
        if size > 1:
            ratio = size / (size - 1)
            assert found["rloo"][i].item() == pytest.approx(ratio * found["dr-grpo"][i].item(), abs=1e-12)
    for name in ids.unique():
        for method in ("grpo", "dr-grpo", "rloo", "reinforce-pp-baseline"):
            assert float(found[method][ids == name].sum()) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", GROUPED)
def test_a_group_without_variance_gives_exactly_zero(name: str) -> None:
    """Invariant 25, in float32 where the mean of equal scores need not be that score."""
    scores = torch.tensor([0.1] * 7 + [0.0, 1.0])
    found = advantages(name, scores.double(), torch.tensor([0] * 7 + [1, 1]))
    assert found[:7].tolist() == [0.0] * 7 and (found[7:] != 0).any()


@given(seed=st.integers(0, 1000), num=st.integers(1, 20), level=st.sampled_from([0.1, 0.4, 0.5, 1.0]))
@CALM
def test_group_quantile_is_the_inverse_distribution_function(seed: int, num: int, level: float) -> None:
    """The least score that at least a share ``level`` of the group does not exceed."""
    scores, ids = grouped(seed, num, 4)
    found = group_quantile(scores, ids, level)
    for i in range(num):
        mates = scores[ids == ids[i]]
        expected = min(float(x) for x in mates if float((mates <= x).double().mean()) >= level - 1e-9)
        assert found[i].item() == expected


def test_qae_is_sparse_on_binary_rewards() -> None:
    """A hard prompt teaches by its success, an easy one by its failure; an outlier is no baseline."""
    ids = torch.tensor([0] * 8 + [1] * 8)
    hard, easy = [1.0] + [0.0] * 7, [0.0] + [1.0] * 7
    found = advantages("qae", torch.tensor(hard + easy, dtype=F64), ids)
    assert (found != 0).nonzero().flatten().tolist() == [0, 8]
    assert found[0] > 0 > found[8]


def test_dr_grpo_divides_by_a_constant() -> None:
    """2503.20783: a token of a long response weighs the same; the two constants differ by a factor only."""
    batch = make_batch(3)
    losses = {}
    for norm in (None, 50):
        algorithm = build_algorithm("dr-grpo", {"norm_tokens": norm, "importance_cap": None})
        old = make_old(algorithm, batch, 1)
        estimates = algorithm.estimate(batch, old, SingleProcess())
        inputs = policy_inputs(algorithm, batch, old, old.logprobs)
        losses[norm] = algorithm.policy_loss(inputs, estimates, counts(batch)).loss.item()
    total = -(estimates.advantages * batch.action_mask).sum().item()
    assert losses[50] == pytest.approx(total / (8 * 50), rel=1e-9)
    assert losses[None] == pytest.approx(total / batch.action_mask.sum().item(), rel=1e-9)


@given(seed=st.integers(0, 500), gamma=st.sampled_from([0.9, 1.0]))
@CALM
def test_reinforce_pp_is_the_whitened_sum_of_later_rewards(seed: int, gamma: float) -> None:
    """2501.03262: KL costs of later tokens included; mean 0 and variance 1 over the global batch."""
    batch = make_batch(seed)
    algorithm = build_algorithm("reinforce-pp", {"kl_coef": 0.3, "gamma": gamma})
    old = make_old(algorithm, batch, seed + 1)
    assert old.ref_logprobs is not None and algorithm.needs_old_logprobs
    returns = torch.zeros_like(batch.rewards)
    for b in range(len(batch)):
        future = 0.0
        for t in batch.action_mask[b].nonzero().flatten().flip(0).tolist():
            kl = float(old.logprobs[b, t] - old.ref_logprobs[b, t])
            future = float(batch.rewards[b, t]) - 0.3 * kl + gamma * future
            returns[b, t] = future
    population = returns[batch.action_mask]
    expected = (returns - population.mean()) / population.std(correction=0)
    found = algorithm.estimate(batch, old, SingleProcess())
    assert torch.allclose(found.advantages[batch.action_mask], expected[batch.action_mask], rtol=1e-6, atol=1e-9)
    assert (found.advantages[~batch.action_mask] == 0).all()


def test_reinforce_pp_baseline_has_the_k2_penalty() -> None:
    """KL as d^2 / 2 in the loss, whose gradient is d * grad logp."""
    batch = make_batch(1)
    algorithm = build_algorithm("reinforce-pp-baseline", {"kl_coef": 0.7, "importance_cap": None})
    old = make_old(algorithm, batch, 2)
    assert not algorithm.needs_old_logprobs and old.ref_logprobs is not None
    estimates = algorithm.estimate(batch, old, SingleProcess())
    loss = algorithm.policy_loss(policy_inputs(algorithm, batch, old, old.logprobs), estimates, counts(batch)).loss
    mask = batch.action_mask
    d = (old.ref_logprobs - old.logprobs)[mask]
    assert loss.item() == pytest.approx(float((-estimates.advantages[mask] + 0.35 * d.square()).mean()), rel=1e-9)


@pytest.mark.parametrize("name", ["dr-grpo", "rloo", "qae", "reinforce-pp", "reinforce-pp-baseline", "ppo-max"])
def test_estimates_do_not_depend_on_the_ranks(name: str) -> None:
    batch = make_batch(1)
    algorithm = build_algorithm(name)
    old = make_old(algorithm, batch, 2)
    whole = algorithm.estimate(batch, old, SingleProcess())
    rows = [torch.tensor([0, 5, 2]), torch.tensor([], dtype=torch.long), torch.tensor([1, 3, 4, 6, 7])]

    def work(world: Any) -> Tensor:
        mine = rows[world.rank]
        return build_algorithm(name).estimate(batch.rows(mine), take(old, mine), world).advantages

    for part, mine in zip(on_ranks(3, work), rows, strict=True):
        assert torch.allclose(part, whole.advantages[mine], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [*GROUPED, "reinforce-pp", "ppo-max", "vapo", "vc-ppo"])
def test_the_gradient_at_ratio_one_is_minus_the_advantage(name: str) -> None:
    """Invariant 28."""
    batch = make_batch(4)
    options = {"kl_coef": 0.0, "loss_aggregation": "token_mean", "importance_cap": None}
    algorithm = build_algorithm(name, options)
    old = make_old(algorithm, batch, 2)
    estimates = algorithm.estimate(batch, old, SingleProcess())
    leaf = old.logprobs.clone().requires_grad_()
    algorithm.policy_loss(policy_inputs(algorithm, batch, old, leaf), estimates, counts(batch)).loss.backward()
    assert leaf.grad is not None
    assert torch.allclose(leaf.grad, -estimates.advantages / batch.action_mask.sum(), rtol=1e-9, atol=1e-15)


# --- PPO-max, VC-PPO, VAPO ---


def test_running_normalisation_against_all_rewards_so_far() -> None:
    """2307.04964, over three batches on two ranks, a far offset, and a checkpoint in between."""
    g = torch.Generator().manual_seed(0)
    batches = [torch.randn(6, generator=g, dtype=F64) * (k + 1) + 1e4 for k in range(3)]
    options = {"reward_correction": [{"type": "normalise", "clip": 1.2}]}

    def work(world: Any) -> list[Tensor]:
        algorithm, found = build_algorithm("ppo", options), []
        for scores in batches:
            mine = scores[world.rank * 4 : world.rank * 4 + 4]
            batch = CorrectedRewards(make_batch(0, rows=len(mine))).with_scores(mine, {}).batch
            result = algorithm.correct_rewards(batch, make_old(algorithm, batch, 1), world)
            assert torch.equal(result.batch.rewards.sum(dim=1), result.batch.scores)
            found.append(result.batch.scores)
            restored = build_algorithm("ppo", options)
            restored.load_state_dict(algorithm.state_dict())
            algorithm = restored
        return found

    first, second = on_ranks(2, work)
    for k, scores in enumerate(batches):
        seen = torch.cat(batches[: k + 1])
        expected = ((scores - seen.mean()) / seen.std(correction=0)).clamp(-1.2, 1.2)
        assert torch.allclose(torch.cat([first[k], second[k]]), expected, rtol=1e-9, atol=1e-9)


def test_normalisation_forgets_and_reports() -> None:
    algorithm = build_algorithm("ppo", {"reward_correction": [{"type": "normalise", "clip": None, "decay": 0.5}]})
    weighted = [(torch.tensor([0.0, 2.0], dtype=F64), 0.5), (torch.tensor([5.0, 9.0], dtype=F64), 1.0)]
    for scores, _ in weighted:
        batch = CorrectedRewards(make_batch(0, rows=2)).with_scores(scores, {}).batch
        result = algorithm.correct_rewards(batch, make_old(algorithm, batch, 1), SingleProcess())
    values, weights = torch.cat([s for s, _ in weighted]), torch.tensor([0.5, 0.5, 1.0, 1.0], dtype=F64)
    mean = float((weights * values).sum() / weights.sum())
    std = float(((weights * (values - mean).square()).sum() / weights.sum()).sqrt())
    assert result.batch.scores.tolist() == pytest.approx([(x - mean) / std for x in (5.0, 9.0)])
    metrics = to_floats(result.metrics)
    assert metrics["correction/normalise_mean"] == pytest.approx(mean)
    assert metrics["correction/normalise_std"] == pytest.approx(std)
    assert metrics["correction/normalise_clip_frac"] == 0.0


def test_equal_rewards_normalise_to_zero() -> None:
    algorithm = build_algorithm("ppo-max", {"kl_coef": 0.0})
    batch = CorrectedRewards(make_batch(0)).with_scores(torch.full((8,), 0.1, dtype=F64), {}).batch
    result = algorithm.correct_rewards(batch, make_old(algorithm, batch, 1), SingleProcess())
    assert result.batch.scores.tolist() == [0.0] * 8


def test_length_adaptive_lambda_by_hand() -> None:
    """2504.05118: 1 - 1 / (0.05 l), per row; 0 for short responses, where the formula is negative."""
    mask = torch.zeros(5, 1000, dtype=torch.bool)
    for row, length in enumerate([0, 10, 20, 100, 1000]):
        mask[row, :length] = True
    assert length_adaptive_lam(mask, 0.05).tolist() == pytest.approx([0.0, 0.0, 0.0, 0.8, 0.98])


def rows_by_themselves(batch: TrainBatch, values: Tensor, alpha: float) -> Tensor:
    """GAE row by row with each row's own lambda."""
    parts = []
    for b in range(len(batch)):
        length = int(batch.action_mask[b].sum())
        rewards, value, mask = (x[b : b + 1] for x in (batch.rewards, values, batch.action_mask))
        parts.append(gae(rewards, value, mask, 1.0, max(0.0, 1.0 - 1.0 / (alpha * length)))[0])
    return torch.cat(parts)


@given(seed=st.integers(0, 500))
@CALM
def test_vapo_uses_each_rows_own_lambda(seed: int) -> None:
    batch = make_batch(seed)
    algorithm = build_algorithm("vapo", {"whiten": "none", "lam_actor_alpha": 0.25})
    old = make_old(algorithm, batch, seed)
    assert old.critic is not None
    values = old.critic.quantile_values.squeeze(-1).squeeze(-1)
    found = algorithm.estimate(batch, old, SingleProcess())
    assert torch.allclose(found.advantages, rows_by_themselves(batch, values, 0.25), rtol=1e-9, atol=1e-12)
    assert found.value_targets is not None  # lam_critic = 1: the sampled return
    expected = torch.where(batch.action_mask, batch.scores[:, None], 0.0)
    assert torch.allclose(found.value_targets.squeeze(-1), expected, rtol=1e-9, atol=1e-12)
