"""Losses for data of an older policy, against loops in plain Python: GSPO, CISPO, decoupled PPO, masks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.clipped_policy import ClippedPolicy
from learner.algorithms.records import PolicyInputs
from learner.algorithms.sampler import SamplerMask
from learner.maths.collective import SingleProcess
from learner.maths.losses.policy import clipped_weight_loss, sequence_clipped_loss
from learner.metrics import to_floats
from rollout.component import UserError
from tests.learner.oracles import grad_of
from tests.learner.random_batches import counts, make_batch, make_old, policy_inputs

F64 = torch.float64
CALM = settings(max_examples=30, deadline=None)


def columns(seed: int, spread: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """New and old log-probabilities, one advantage a row, and a mask with holes and an empty row."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.rand(5, 9, generator=g) < 0.6
    mask[3] = False
    old = -torch.rand(5, 9, generator=g, dtype=F64)
    new = old + spread * torch.randn(5, 9, generator=g, dtype=F64)
    advantages = torch.randn(5, 1, generator=g, dtype=F64).expand(5, 9)
    return torch.where(mask, new, torch.nan), torch.where(mask, old, torch.nan), advantages, mask


def sampled(mask: Tensor, row: int) -> list[int]:
    return [t for t in range(mask.shape[1]) if mask[row, t]]


@given(seed=st.integers(0, 500), spread=st.sampled_from([1e-4, 0.1, 1.0]), low=st.floats(0, 0.5), high=st.floats(0, 1))
@CALM
def test_gspo_equals_the_sequence_formula(seed: int, spread: float, low: float, high: float) -> None:
    """Eq 5 and 7: the mean over tokens is the clipped product of the geometric mean and A, with its gradient."""
    new, old, advantages, mask = columns(seed, spread)
    found = sequence_clipped_loss(new, old, advantages, mask, low, high)
    gradient = grad_of(lambda x: sequence_clipped_loss(x, old, advantages, mask, low, high).loss, new)
    for row in range(5):
        tokens = sampled(mask, row)
        if not tokens:
            assert found.loss[row].abs().sum() == 0 and gradient[row].abs().sum() == 0
            continue
        a = float(advantages[row, 0])
        s = math.prod(math.exp(float(new[row, t] - old[row, t])) for t in tokens) ** (1 / len(tokens))
        clipped = min(max(s, 1 - low), 1 + high)
        assert float(found.loss[row].sum()) / len(tokens) == pytest.approx(max(-s * a, -clipped * a), rel=1e-9)
        is_cut = -clipped * a > -s * a
        assert found.clipped[row].tolist() == [is_cut and bool(mask[row, t]) for t in range(9)]
        for t in range(9):
            # d/dlogp_t of -s A is -s A / |y|; the token loss is |y| times that, for the mean to be it
            expected = -s * a if mask[row, t] and not is_cut else 0.0
            assert float(gradient[row, t]) == pytest.approx(expected, rel=1e-9, abs=1e-12)
            if mask[row, t]:
                assert float(found.ratio[row, t]) == pytest.approx(s, rel=1e-9)


@given(seed=st.integers(0, 500), low=st.none() | st.floats(0, 1), high=st.floats(0, 3))
@CALM
def test_cispo_keeps_the_gradient_of_every_token(seed: int, low: float | None, high: float) -> None:
    """Eq 4 and 5."""
    new, old, advantages, mask = columns(seed, 1.0)
    found = clipped_weight_loss(new, old, advantages, mask, low, high)
    gradient = grad_of(lambda x: clipped_weight_loss(x, old, advantages, mask, low, high).loss, new)
    for row in range(5):
        for t in range(9):
            if not mask[row, t]:
                assert float(found.loss[row, t]) == float(gradient[row, t]) == 0.0 and not found.clipped[row, t]
                continue
            ratio = math.exp(float(new[row, t] - old[row, t]))
            weight = min(ratio, 1 + high) if low is None else min(max(ratio, 1 - low), 1 + high)
            pull = -weight * float(advantages[row, t])
            assert float(found.loss[row, t]) == pytest.approx(pull * float(new[row, t]), rel=1e-9)
            assert float(gradient[row, t]) == pytest.approx(pull, rel=1e-9)
            assert bool(found.clipped[row, t]) == (weight != pytest.approx(ratio, rel=1e-12))


@pytest.mark.parametrize("preset", ["gspo", "cispo"])
def test_presets_use_their_loss_and_aggregation(preset: str) -> None:
    algorithm = build_algorithm(preset, {"importance_cap": None})
    assert isinstance(algorithm, ClippedPolicy) and not algorithm.needs_critic
    batch = make_batch(2)
    old = make_old(algorithm, batch, 3)
    estimates = algorithm.estimate(batch, old, SingleProcess())
    logprobs = old.logprobs + 0.5 * torch.where(batch.action_mask, old.logprobs.sin(), 0.0)
    found = algorithm.policy_loss(policy_inputs(algorithm, batch, old, logprobs), estimates, counts(batch)).loss
    total = 0.0
    for row in range(len(batch)):
        tokens = sampled(batch.action_mask, row)
        gaps = [float(logprobs[row, t] - old.logprobs[row, t]) for t in tokens]
        a = float(estimates.advantages[row, tokens[0]])
        if preset == "gspo":
            s = math.exp(sum(gaps) / len(gaps))
            total += max(-s * a, -min(max(s, 1 - 3e-4), 1 + 4e-4) * a) / len(batch)
        else:
            for t, gap in zip(tokens, gaps, strict=True):
                total -= min(math.exp(gap), 5.0) * a * float(logprobs[row, t]) / float(batch.action_mask.sum())
    assert float(found) == pytest.approx(total, rel=1e-9)
    assert algorithm.remarks() == []
    alone = build_algorithm(preset, {"num_minibatches": 1})
    assert "policy_objective.clip_high" in alone.remarks()[0]  # there is nothing to clip in a single step


@given(seed=st.integers(0, 100), cap=st.none() | st.floats(0.2, 3.0))
@CALM
def test_the_default_loss_is_decoupled_ppo(seed: int, cap: float | None) -> None:
    """2110.00641: behaviour policy, proximal policy and current policy are three; the first weight is truncated."""
    algorithm = build_algorithm("grpo", {"importance_cap": cap, "loss_aggregation": "token_mean"})
    batch = make_batch(seed)
    old = make_old(algorithm, batch, seed + 1)
    estimates = algorithm.estimate(batch, old, SingleProcess())
    current = old.logprobs + 0.4 * torch.where(batch.action_mask, (7 * old.logprobs).sin(), 0.0)
    found = algorithm.policy_loss(policy_inputs(algorithm, batch, old, current), estimates, counts(batch)).loss
    total, number = 0.0, 0
    for row in range(len(batch)):
        for t in sampled(batch.action_mask, row):
            behaviour, proximal = float(batch.rollout_logprobs[row, t]), float(old.logprobs[row, t])
            rho, a = math.exp(float(current[row, t]) - proximal), float(estimates.advantages[row, t])
            weight = 1.0 if cap is None else min(math.exp(proximal - behaviour), cap)
            total -= weight * min(rho * a, min(max(rho, 0.8), 1.2) * a)
            number += 1
    assert float(found) == pytest.approx(total / number, rel=1e-9, abs=1e-12)


@given(seed=st.integers(0, 300), level=st.sampled_from(["token", "geometric", "sequence"]), low=st.floats(0, 0.99))
@CALM
def test_masks_equal_the_loop(seed: int, level: Any, low: float) -> None:
    new, old, _, mask = columns(seed, 0.3)
    high = 1.05 + low
    mask_of = SamplerMask(level=level, low=low, high=high)
    kept = mask_of(PolicyInputs(new, new, old, None, None, mask))
    for row in range(5):
        tokens = sampled(mask, row)
        ratios = {t: math.exp(float(new[row, t] - old[row, t])) for t in tokens}
        whole = math.prod(ratios.values())
        for t in range(9):
            ratio = 1.0
            if t in ratios:
                ratio = {"token": ratios[t], "sequence": whole, "geometric": whole ** (1 / len(tokens))}[level]
            assert kept[row, t] == (1.0 if low <= ratio <= high or t not in ratios else 0.0)


def test_masked_tokens_have_no_gradient_and_are_reported() -> None:
    batch = make_batch(5)
    plain = build_algorithm("grpo")
    masking = build_algorithm("grpo", {"sampler_mask": {"level": "geometric", "low": 0.97, "high": 1.03}})
    old = make_old(plain, batch, 6)
    estimates = plain.estimate(batch, old, SingleProcess())
    gradients, shares = [], []
    for algorithm in (plain, masking):

        def loss(x: Tensor, chosen: Any = algorithm) -> Tensor:
            result: Tensor = chosen.policy_loss(policy_inputs(chosen, batch, old, x), estimates, counts(batch)).loss
            return result

        gradients.append(grad_of(loss, old.logprobs))
        inputs = policy_inputs(algorithm, batch, old, old.logprobs)
        shares.append(to_floats(algorithm.policy_loss(inputs, estimates, counts(batch)).metrics))
    gap = (old.logprobs - batch.rollout_logprobs).sum(dim=1) / batch.action_mask.sum(dim=1)
    far = (gap.exp() < 0.97) | (gap.exp() > 1.03)
    assert 0 < int(far.sum()) < len(batch)
    assert torch.equal(gradients[1], torch.where(far[:, None], 0.0, gradients[0]))
    tokens = batch.action_mask.sum(dim=1)
    assert shares[1]["policy/sampler_masked_frac"] == pytest.approx(float(tokens[far].sum() / tokens.sum()))
    assert "policy/sampler_masked_frac" not in shares[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy_objective": "gspo", "clip_ratio_high": 0.28}, "algorithm.clip_ratio_high has no effect with policy"),
        ({"policy_objective": {"type": "cispo", "clip_high": -1}}, "algorithm.policy_objective.clip_high"),
        ({"sampler_mask": {"level": "sequence"}}, "algorithm.sampler_mask.high"),
        ({"sampler_mask": {"level": "row", "high": 2.0}}, "algorithm.sampler_mask.level"),
        ({"sampler_mask": {"level": "token", "low": 1.0, "high": 1.0}}, "low must be below high"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        build_algorithm("grpo", options)
    assert message in str(caught.value)
