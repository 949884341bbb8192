"""An update whose numbers went wrong changes nothing: not the weights, the optimisers, nor the algorithm's scales."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from learner.config import LearnerConfig
from learner.metrics import to_floats
from learner.update.distances.sampler_gap import percentile
from learner.update.learner import Learner
from learner.update.limits import UpdateLimits
from rollout.trajectory import ScoredTrajectory
from tests.learner.plain_learner import TorchEngine, random_samples

MakeLearner = Callable[..., Learner]
CONFIG = LearnerConfig(policy_lr=1e-3, critic_lr=2e-3, lr_warmup_frac=0.0, micro_batch_tokens=60)
CORRECTIONS = {"reward_correction": ["normalise"]}
OPTIONS: dict[str, dict[str, Any]] = {
    "dvpo": {"critic": {"num_heads": 2, "num_quantiles": 32}, **CORRECTIONS},
    "recap": {"replay_frac": 0.5, **CORRECTIONS},
    "ppo": CORRECTIONS,
}


def snapshot(learner: Learner) -> dict[str, Any]:
    """Everything an update may change."""
    engines = [engine for engine in (learner.policy, learner.critic) if isinstance(engine, TorchEngine)]
    parts = [copy.deepcopy((e.module.state_dict(), e.optimizer.state_dict()["state"])) for e in engines]
    return {
        "engines": parts,
        "algorithm": copy.deepcopy(learner.algorithm.state_dict()),
        "counters": learner.state_dict(),
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def poison_output(learner: Learner, engine: str, name: str, value: float, from_call: int = 0) -> Callable[[], None]:
    """From one forward pass on, an output is multiplied; returns the cure."""
    target = getattr(learner, engine)
    forward, calls = target.forward, 0

    def poisoned(**inputs: object) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        outputs: dict[str, Tensor] = dict(forward(**inputs))
        if calls > from_call:
            outputs[name] = outputs[name] * value
        return outputs

    target.forward = poisoned

    def cure() -> None:
        target.forward = forward

    return cure


class SpoiltGradient(torch.autograd.Function):
    """What it is given, with a gradient that is multiplied."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None


def poison_gradient(learner: Learner, engine: str, factor: float) -> Callable[[], None]:
    """The loss stays finite, its gradient does not; returns the cure."""
    target = getattr(learner, engine)
    forward = target.forward

    def poisoned(**inputs: object) -> dict[str, Tensor]:
        return {name: SpoiltGradient.apply(value, factor) for name, value in forward(**inputs).items()}

    target.forward = poisoned

    def cure() -> None:
        target.forward = forward

    return cure


def far_sampler(samples: list[ScoredTrajectory], by: float, rows: range) -> list[ScoredTrajectory]:
    def moved(sample: ScoredTrajectory) -> ScoredTrajectory:
        t = sample.trajectory
        pairs = zip(t.rollout_logprobs, t.action_mask, strict=True)
        return replace(sample, trajectory=replace(t, rollout_logprobs=tuple(p - by * m for p, m in pairs)))

    return [moved(sample) if i in rows else sample for i, sample in enumerate(samples)]


def sampled_by(learner: Learner, samples: list[ScoredTrajectory]) -> list[ScoredTrajectory]:
    """The samples with the learner's own log-probabilities, as an exact sampler would report them."""
    rows = learner.logprobs([list(s.trajectory.token_ids) for s in samples])
    columns = [
        tuple(p if m else 0.0 for p, m in zip(row, s.trajectory.action_mask, strict=True))
        for row, s in zip(rows, samples, strict=True)
    ]
    return [
        replace(s, trajectory=replace(s.trajectory, rollout_logprobs=column))
        for s, column in zip(samples, columns, strict=True)
    ]


FAULTS: dict[str, tuple[Callable[[Learner], Callable[[], None]], str]] = {
    "values": (
        lambda x: poison_output(x, "critic", "quantile_values", math.nan),
        "values of the critic are not finite",
    ),
    "logprobs": (
        lambda x: poison_output(x, "policy", "logprobs", math.inf),
        "log-probabilities of the policy are not finite, on rank 0",
    ),
    "policy gradient": (lambda x: poison_gradient(x, "policy", math.nan), "the policy gradient is not finite"),
    "policy overflow": (lambda x: poison_gradient(x, "policy", 1e30), "the policy gradient is not finite"),
    "critic gradient": (lambda x: poison_gradient(x, "critic", math.inf), "the critic gradient is not finite"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_refused_update_changes_nothing_and_the_next_is_as_if_it_had_not_been(
    fault: str, make_learner: MakeLearner
) -> None:
    learner, spared = (make_learner("dvpo", OPTIONS["dvpo"], CONFIG) for _ in range(2))
    learner.update(random_samples(9, 0), 0)
    spared.update(random_samples(9, 0), 0)
    before = snapshot(learner)
    assert before["algorithm"]["scale"]["weight"] > 0 and before["algorithm"]["corrections"][0]["count"] == 9
    poison, reason = FAULTS[fault]
    cure = poison(learner)
    result = learner.update(random_samples(9, 1), 1)
    cure()
    assert result.skipped.startswith("update 1, ") and reason in result.skipped and result.notes == (result.skipped,)
    metrics = to_floats(result.metrics)
    assert (metrics["guard/num_skipped_steps"], metrics["guard/num_nonfinite_steps"]) == (1.0, 1.0)
    assert "policy/loss" not in metrics and "critic/grad_norm" not in metrics
    assert same(snapshot(learner), before)
    healthy, expected = learner.update(random_samples(9, 2), 2), spared.update(random_samples(9, 2), 2)
    assert healthy.metrics == expected.metrics and healthy.skipped == "" and healthy.notes == ()
    assert to_floats(healthy.metrics)["guard/num_skipped_steps"] == 0.0
    assert same(snapshot(learner), snapshot(spared))
    assert not same(snapshot(learner)["engines"], before["engines"])


@pytest.mark.parametrize("algorithm", OPTIONS)
@pytest.mark.parametrize("column", ["reward", "too large", "rollout_logprobs"])
def test_numbers_of_a_trajectory_that_are_not_finite(algorithm: str, column: str, make_learner: MakeLearner) -> None:
    learner = make_learner(algorithm, OPTIONS[algorithm], CONFIG)
    learner.update(random_samples(9, 0), 0)
    before = snapshot(learner)
    samples = random_samples(9, 1)
    if column == "rollout_logprobs":
        bad = (*samples[3].trajectory.rollout_logprobs[:-1], -math.inf)
        samples[3] = replace(samples[3], trajectory=replace(samples[3].trajectory, rollout_logprobs=bad))
    else:  # 1e39 is finite in Python, but not in float32
        samples[3] = replace(samples[3], reward={"reward": math.nan, "too large": 1e39}[column])
    result = learner.update(samples, 1)
    expected = {
        "reward": r"update 1: trajectory p0#3 cannot be trained on: its reward is nan",
        "too large": r"update 1: trajectory p0#3 cannot be trained on: its reward is 1e\+39",
        "rollout_logprobs": r"update 1: trajectory p0#3 .* one of its rollout_logprobs is not finite",
    }[column]
    assert re.fullmatch(expected, result.skipped), result.skipped
    assert same(snapshot(learner), before)
    assert learner.update(random_samples(9, 2), 2).skipped == ""


def test_estimates_that_overflow(make_learner: MakeLearner) -> None:
    learner = make_learner("ppo", {}, CONFIG)
    learner.update(random_samples(9, 0), 0)
    before = snapshot(learner)
    huge = [replace(sample, reward=3e38 * (-1) ** i) for i, sample in enumerate(random_samples(9, 1))]
    result = learner.update(huge, 1)
    assert re.fullmatch(r"update 1, .* not finite.* on rank 0", result.skipped), result.skipped
    assert same(snapshot(learner), before)


def test_only_the_bad_steps_of_an_update_are_left_out(make_learner: MakeLearner) -> None:
    config = CONFIG.model_copy(update={"micro_batch_tokens": 10_000})
    learner = make_learner("recap", {"replay_frac": 0.0, "num_minibatches": 3, "window": 2}, config)
    cure = poison_output(learner, "policy", "logprobs", math.nan, from_call=4)  # 3 to look back, then the first step
    result = learner.update(random_samples(12), 0)
    cure()
    metrics = to_floats(result.metrics)
    assert (metrics["guard/num_skipped_steps"], result.skipped, len(result.notes)) == (2.0, "", 2)
    assert all(note.startswith("update 0, epoch 0, mini-batch ") for note in result.notes)
    assert math.isfinite(metrics["policy/loss"]) and math.isfinite(metrics["policy/approx_kl"])
    assert learner.policy_steps == 1
    history = learner.algorithm.state_dict()["history"]["surrogate"]
    assert history == pytest.approx([metrics["policy/loss"]], rel=1e-6)  # of the one step that was taken


@pytest.mark.parametrize("options", [{}, {"num_minibatches": 2}], ids=["first forward pass", "look back"])
def test_a_sampler_that_is_too_far_away_is_seen_before_anything_changes(
    options: dict[str, Any], make_learner: MakeLearner
) -> None:
    limits = UpdateLimits(0.9, max_gap=0.5, max_stale_gap=2.0)
    learner = make_learner("ppo", {**OPTIONS["ppo"], **options}, CONFIG, limits=limits)
    samples = sampled_by(learner, random_samples(12))
    before = snapshot(learner)
    forwards = 0
    forward = learner.policy.forward

    def counted(**inputs: object) -> dict[str, Tensor]:
        nonlocal forwards
        forwards += 1
        return forward(**inputs)

    learner.policy.forward = counted  # type: ignore[method-assign]
    result = learner.update(far_sampler(samples, 0.75, range(2, 12)), 0)
    assert "the 90th percentile of |learner - sampler| log-probability over" in result.skipped
    assert "tokens of fresh responses is 0.75 nats, above 0.5" in result.skipped
    metrics = to_floats(result.metrics)
    assert metrics["guard/sampler_gap"] == pytest.approx(0.75, abs=1e-5)
    assert "guard/sampler_gap_stale" not in metrics
    assert (metrics["guard/num_skipped_steps"], metrics["guard/num_nonfinite_steps"]) == (
        options.get("num_minibatches", 1), 0.0,
    )  # fmt: skip
    assert same(snapshot(learner), before)
    assert forwards == metrics["learner/micro_batches"]  # no pass is added for it
    learner.update(samples, 0)
    assert not same(snapshot(learner)["engines"], before["engines"])


def test_stale_responses_have_a_limit_of_their_own_and_replayed_ones_none(make_learner: MakeLearner) -> None:
    limits = UpdateLimits(1.0, max_gap=0.5, max_stale_gap=2.0)
    options = {"replay_frac": 1.0, "replay_capacity": 99}
    config = CONFIG.model_copy(update={"policy_lr": 1e-12})
    learner = make_learner("recap", options, config, limits=limits)
    fresh = sampled_by(learner, random_samples(8, 1))
    wild = far_sampler(fresh, 1.5, range(8))  # sampled with version 0
    first = learner.update(wild, 0)
    assert "fresh responses is 1.5 nats" in first.skipped
    result = learner.update(wild, 1)  # the same are stale for version 1
    assert result.skipped == ""
    assert to_floats(result.metrics)["guard/sampler_gap_stale"] == pytest.approx(1.5, abs=1e-4)
    new = [replace(s, trajectory=replace(s.trajectory, policy_version_min=2, policy_version_max=2)) for s in fresh]
    result = learner.update(new, 2)  # replays the wild ones beside them
    metrics = to_floats(result.metrics)
    assert result.skipped == "" and metrics["guard/sampler_gap"] < 1e-3 and "guard/sampler_gap_stale" not in metrics
    assert metrics["policy/sampler_logprob_gap_max"] == pytest.approx(1.5, abs=1e-3)
    too_far = learner.update(far_sampler(fresh, 2.5, range(1)), 3)
    assert "tokens of responses of older weights is 2.5 nats, above 2" in too_far.skipped


def test_without_a_limit_the_gap_is_only_measured(make_learner: MakeLearner) -> None:
    found = []
    for limits in (UpdateLimits(), UpdateLimits(0.99)):
        learner = make_learner("ppo", OPTIONS["ppo"], CONFIG, limits=limits)
        result = learner.update(far_sampler(sampled_by(learner, random_samples(8)), 30.0, range(8)), 0)
        assert result.skipped == ""
        found.append((to_floats(result.metrics), snapshot(learner)))
    (silent, one), (measured, other) = found
    assert same(one, other)
    assert measured.pop("guard/sampler_gap") == pytest.approx(30.0, abs=1e-3)
    assert silent == measured


def test_percentile_by_hand() -> None:
    values = torch.tensor([5.0, 1.0, 4.0, 2.0, 3.0])
    levels = (0.01, 0.2, 0.21, 0.5, 0.8, 0.99, 1.0)
    assert [percentile(values, level) for level in levels] == [1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 5.0]
    thousand = torch.arange(1, 1001)
    assert (percentile(thousand, 0.99), percentile(thousand, 0.5)) == (990.0, 500.0)
    assert percentile(torch.tensor([math.inf, 0.0]), 0.5) == 0.0
