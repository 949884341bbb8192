"""What is recorded of tokens: the right numbers, within its bound, and no trace of it in training."""

from __future__ import annotations

import json
import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from learner.config import LearnerConfig
from learner.update.learner import Learner
from learner.update.limits import TraceLimits
from learner.update.token_traces import LEVELS, thinned_levels, traced_samples
from tests.learner.plain_learner import plain_learner, random_samples

CONFIG = LearnerConfig(policy_lr=5e-3, critic_lr=1e-3, micro_batch_tokens=120, lr_warmup_frac=0.0)
DVPO = {"critic": {"num_heads": 2, "num_quantiles": 32}, "alpha": 0.2, "beta": 0.2}


def learner_of(tiny_model: Path, algorithm: str, limits: TraceLimits, **options: Any) -> Learner:
    learner = plain_learner(tiny_model, algorithm, options, CONFIG)
    learner.settings = replace(learner.settings, traces=limits)
    return learner


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("grpo", {}),
        ("dvpo", DVPO),
        ("ppo", {"num_minibatches": 2}),
        ("reinforce", {"kl_coef": 0.1, "kl_mode": "reward"}),
    ],
)
def test_log_probabilities_are_those_before_and_after_the_update(
    tiny_model: Path, algorithm: str, options: dict[str, Any]
) -> None:
    """Whether the method computes old ones itself, or they come from the only pass of its loss."""
    learner = learner_of(tiny_model, algorithm, TraceLimits(3, 1 << 20), **options)
    samples = random_samples(12, seed=1)
    ids = [sample.trajectory.token_ids for sample in samples[:3]]
    before = learner.logprobs(ids)
    traces = learner.update(samples, 0).traces
    after = learner.logprobs(ids)
    assert list(traces) == [sample.trajectory.trajectory_id for sample in samples[:3]]
    for sample, trace, old, new in zip(samples, traces.values(), before, after, strict=False):
        mask = sample.trajectory.action_mask
        place = range(trace.first, len(mask))
        assert trace.first == sample.trajectory.num_prompt_tokens and trace.num_left_out == 0
        assert trace.sampled == tuple(mask[t] for t in place)
        for kept, known in ((trace.old, old), (trace.new, new)):
            expected = [known[t] if mask[t] else None for t in place]
            assert [x is None for x in kept] == [x is None for x in expected]
            assert [x for x in kept if x is not None] == pytest.approx([x for x in expected if x is not None], abs=1e-4)
    assert any(trace.old != trace.new for trace in traces.values())


def test_values_are_the_old_critics_at_the_nearest_levels(tiny_model: Path) -> None:
    learner = learner_of(tiny_model, "dvpo", TraceLimits(2, 1 << 20), **DVPO)
    samples = random_samples(6, seed=2)
    assert learner.critic is not None
    trajectory = samples[0].trajectory
    ids = torch.tensor([trajectory.token_ids])
    with torch.no_grad():
        found = learner.critic.forward(token_ids=ids, action_mask=torch.tensor([trajectory.action_mask]))
    trace = next(iter(learner.update(samples, 0).traces.values()))
    taus = [(2 * i + 1) / 64 for i in range(32)]
    nearest = [min(range(32), key=lambda i: abs(taus[i] - level)) for level in LEVELS]
    assert trace.levels == pytest.approx([taus[i] for i in nearest], abs=1e-4)
    for offset, (token, sampled) in enumerate(zip(trace.values, trace.sampled, strict=True)):
        assert (token is not None) is sampled
        if token is not None:
            expected = found["quantile_values"][0, trace.first + offset, :, nearest]
            torch.testing.assert_close(torch.tensor(token), expected, atol=1e-4, rtol=0.0)


def test_the_corrected_reward_is_the_one_that_was_handed_on(tiny_model: Path) -> None:
    correction = [{"type": "noise_corrected", "false_positive_rate": 0.1, "false_negative_rate": 0.1}]
    learner = learner_of(tiny_model, "grpo", TraceLimits(4, 1 << 20), reward_correction=correction)
    samples = random_samples(8, seed=3)
    traces = learner.update(samples, 0).traces
    expected = [(sample.reward - 0.1) / 0.8 for sample in samples[:4]]
    assert [trace.corrected for trace in traces.values()] == pytest.approx(expected, abs=1e-4)
    plain = learner_of(tiny_model, "grpo", TraceLimits(1, 1 << 20)).update(samples, 0).traces
    assert next(iter(plain.values())).corrected is None


def test_it_leaves_no_trace_in_training(tiny_model: Path) -> None:
    """Weights and random streams are the same bit for bit with it and without, and without it nothing is recorded."""
    ends = []
    for limits in (TraceLimits(), TraceLimits(4, 1 << 20)):
        torch.manual_seed(0)
        random.seed(0)
        learner = learner_of(tiny_model, "dvpo", limits, **DVPO)
        results = [learner.update(random_samples(8, seed=i), i) for i in range(3)]
        assert all(bool(result.traces) is limits.is_on for result in results)
        weights = {name: w for name, w in learner.policy.full_weights()}  # noqa: C416
        ends.append((weights, torch.get_rng_state(), random.getstate()))
    (first, first_torch, first_random), (second, second_torch, second_random) = ends
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(first_torch, second_torch) and first_random == second_random


@pytest.mark.parametrize("kib", [1, 2, 8])
def test_the_bound_holds_in_bytes(kib: int, tiny_model: Path) -> None:
    learner = learner_of(tiny_model, "dvpo", TraceLimits(12, kib * 1024), **DVPO)
    traces = learner.update(random_samples(12, seed=4), 0).traces
    size = sum(len(json.dumps(asdict(trace))) for trace in traces.values())
    assert 0 < size <= kib * 1024 * 1.2 + 200 * len(traces)  # an estimate; the writer holds the bound exactly


def test_whole_trajectories_first_and_the_beginning_of_one_that_is_too_long() -> None:
    samples = random_samples(6, seed=5)
    lengths = [len(s.trajectory.token_ids) - s.trajectory.num_prompt_tokens for s in samples]
    one = 8 * 6  # bytes of a token without a critic
    found = traced_samples(samples, TraceLimits(6, one * (lengths[0] - 1)), 0)
    (place,) = found.values()
    assert place[1] - place[0] == lengths[0] - 1
    room = lengths[0] + min(lengths[1:])
    found = traced_samples(samples, TraceLimits(6, one * room), 0)
    sizes = [end - first for first, end in found.values()]
    assert sizes[0] == lengths[0] and sum(sizes) <= room
    assert traced_samples(samples, TraceLimits(6, one - 1), 0) == {}


def test_levels_of_few_quantiles_are_all_of_them() -> None:
    assert thinned_levels(1) == [0] and thinned_levels(5) == [0, 1, 2, 3, 4]
    assert len(thinned_levels(200)) == len(LEVELS)
