"""What an update keeps of the critic before it: passes not done twice, and no more of the heads than is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from learner.algorithms.catalogue import build_algorithm
from learner.config import LearnerConfig
from learner.metrics import to_floats
from learner.update import rank_update
from learner.update.learner import Learner
from learner.update.old_outputs.critic import KeptPasses
from tests.learner.plain_learner import random_samples

MakeLearner = Callable[..., Learner]
LAW = {"critic": {"num_heads": 3, "num_quantiles": 20}}
WHOLE = LearnerConfig(policy_lr=1e-3, critic_lr=1e-3, lr_warmup_frac=0.0, micro_batch_tokens=16384)


def updated(learner: Learner, number: int = 2) -> tuple[dict[str, Tensor], dict[str, float], int]:
    """Weights and the last metrics after some updates, and how often the critic ran forward in each."""
    assert learner.critic is not None
    forward, calls = learner.critic.forward, 0

    def counted(**inputs: Any) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        return forward(**inputs)

    learner.critic.forward = counted  # type: ignore[method-assign]
    torch.manual_seed(0)
    for index in range(number):
        result = learner.update(random_samples(8, index), index)
        assert result.skipped == ""
    engines = {"policy": learner.policy, "critic": learner.critic}
    weights = {f"{name}.{key}": w for name, engine in engines.items() for key, w in engine.full_weights()}
    return weights, to_floats(result.metrics), calls // number


def again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep nothing: every pass is done anew."""
    monkeypatch.setattr(rank_update, "kept_passes", lambda *_: KeptPasses(0, frozenset()))


CASES: dict[str, tuple[str, dict[str, Any], LearnerConfig, tuple[int, int]]] = {
    "one micro-batch": ("dvpo", LAW, WHOLE, (1, 2)),
    "heads are read": ("ppo", {}, WHOLE, (1, 2)),
    "end values": ("dvpo", {**LAW, "bootstrap_truncated": True}, WHOLE, (2, 2)),  # training asks for no end values
    "ends in training": ("decoupled-vpo", {}, WHOLE, (1, 2)),
    "layout": ("cql", {}, WHOLE, (2, 3)),  # of which one is of responses behind other prompts
    "noise": ("vrpo", {}, WHOLE, (2, 2)),
    "two steps": ("dvpo", {**LAW, "num_minibatches": 2, "num_epochs": 2}, WHOLE, (5, 6)),
    "ZeRO 3": ("ppo", {}, WHOLE.model_copy(update={"zero_stage": 3}), (2, 2)),
}


@pytest.mark.parametrize("name", CASES)
def test_passes_that_are_kept_change_no_bit(
    name: str, make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset, options, config, expected = CASES[name]
    weights, metrics, calls = updated(make_learner(preset, options, config))
    again(monkeypatch)
    others, plain, more_calls = updated(make_learner(preset, options, config))
    assert (calls, more_calls) == expected
    assert plain == pytest.approx(metrics, rel=0.0, abs=0.0, nan_ok=True)
    assert [key for key, weight in others.items() if not torch.equal(weights[key], weight)] == []


def test_as_many_passes_are_kept_as_fit_into_one_micro_batch(
    make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = WHOLE.model_copy(update={"micro_batch_tokens": 30})
    weights, metrics, calls = updated(make_learner("dvpo", LAW, config))
    again(monkeypatch)
    others, plain, more_calls = updated(make_learner("dvpo", LAW, config))
    assert metrics["learner/micro_batches"] >= 3
    assert 1 <= more_calls - calls < metrics["learner/micro_batches"]
    assert metrics == plain and all(torch.equal(weights[key], weight) for key, weight in others.items())


def test_the_mean_of_the_heads_is_enough_for_most(make_learner: MakeLearner, monkeypatch: pytest.MonkeyPatch) -> None:
    def kept_heads(options: dict[str, Any], all_heads: bool = False) -> tuple[dict[str, Tensor], dict[str, float], int]:
        seen = []
        learner = make_learner("dvpo", options, WHOLE)
        if all_heads:
            learner.algorithm.needs_old_heads = True
        estimate = learner.algorithm.estimate

        def noted(batch: Any, old: Any, world: Any) -> Any:
            seen.append(old.critic.quantile_values.shape[-2])
            return estimate(batch, old, world)

        monkeypatch.setattr(learner.algorithm, "estimate", noted)
        weights, metrics, _ = updated(learner)
        assert len(set(seen)) == 1
        return weights, metrics, seen[0]

    for options in (LAW, {**LAW, "reward_correction": ["precision"]}):
        weights, metrics, heads = kept_heads(options)
        others, plain, all_heads = kept_heads(options, all_heads=True)
        assert (heads, all_heads) == (1, 3)
        assert "critic/head_disagreement" in metrics and metrics == plain
        assert all(torch.equal(weights[key], weight) for key, weight in others.items())
    assert kept_heads({**LAW, "value_clip": 0.1})[2] == 3


@pytest.mark.parametrize(
    ("preset", "options", "needs"),
    [
        ("dvpo", {}, False),
        ("dvpo", {"shape_ref": "old", "shape_coef": 1.0}, True),
        ("dvpo", {"target_mode": "quantile_wise"}, False),
        ("robust_bellman", {}, True),
        ("ppo", {}, True),  # its value clip
        ("ppo", {"value_clip": None}, False),
    ],
)
def test_who_reads_the_heads(preset: str, options: dict[str, Any], needs: bool) -> None:
    assert build_algorithm(preset, options).needs_old_heads is needs
