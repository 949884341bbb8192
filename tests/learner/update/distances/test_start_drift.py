"""KL to the starting policy: the right number, in the right steps, and no trace of it in training."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learner.config import LearnerConfig, ModelConfig
from learner.metrics import to_floats
from learner.models.policy import PolicyModel, load_reference
from learner.update.distances.start_drift import SAMPLE, StartDrift
from learner.update.learner import Learner
from rollout.component import UserError
from tests.learner.plain_learner import plain_learner, random_samples

KEY = "policy/kl_to_start"
CONFIG = LearnerConfig(policy_lr=5e-3, critic_lr=1e-3, micro_batch_tokens=120, lr_warmup_frac=0.0)


def learner_of(tiny_model: Path, algorithm: str, every: int = 1, **options: Any) -> Learner:
    learner = plain_learner(tiny_model, algorithm, options, CONFIG)
    learner.drift = StartDrift(every, lambda: load_reference(ModelConfig(path=str(tiny_model)), seed=0))
    return learner


def streams() -> tuple[Any, ...]:
    """The state of every random stream."""
    numbers: Any = np.random.get_state()
    return torch.get_rng_state().tolist(), random.getstate(), list(numbers[1]), numbers[2]


@pytest.mark.parametrize("algorithm", ["grpo", "ppo", "reinforce"])
def test_drift_is_seen_with_one_optimiser_step_a_batch(tiny_model: Path, algorithm: str) -> None:
    """What approx_kl cannot show: there the policy of before the update is the one that is trained."""
    learner = learner_of(tiny_model, algorithm)
    found = [to_floats(learner.update(random_samples(12, seed=i), i).metrics) for i in range(3)]
    assert [metrics["policy/approx_kl"] for metrics in found] == [0.0] * 3
    assert found[0][KEY] == 0.0
    assert found[1][KEY] > 1e-5
    assert found[2][KEY] > found[1][KEY]


@pytest.mark.parametrize("kl_coef", [0.0, 0.1], ids=["from the files", "of the frozen reference"])
def test_the_number_by_hand(tiny_model: Path, kl_coef: float) -> None:
    learner = learner_of(tiny_model, "grpo", kl_coef=kl_coef)
    assert (learner.reference is not None) is (kl_coef > 0.0)
    for i in range(2):
        learner.update(random_samples(12, seed=i), i)
    samples = random_samples(SAMPLE, seed=9)
    start = learner_of(tiny_model, "grpo")
    ids = [sample.trajectory.token_ids for sample in samples]
    total = count = 0.0
    for sample, now, then in zip(samples, learner.logprobs(ids), start.logprobs(ids), strict=True):
        for sampled, current, first in zip(sample.trajectory.action_mask, now, then, strict=True):
            if sampled:
                total += math.exp(first - current) - (first - current) - 1.0
                count += 1
    found = to_floats(learner.drift.measure(learner, samples))
    assert found == {KEY: pytest.approx(total / count, rel=1e-4)}
    assert found[KEY] > 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["grpo", "ppo", "dvpo"])
def test_training_goes_on_to_the_last_bit_as_without_it(tiny_model: Path, algorithm: str) -> None:
    weights, left = [], []
    for every in (0, 1):
        torch.manual_seed(3)
        random.seed(4)
        np.random.seed(5)
        learner = learner_of(tiny_model, algorithm, every)
        torch.manual_seed(6)
        for i in range(3):
            metrics = learner.update(random_samples(12, seed=i), i).metrics
            assert (KEY in metrics) is (every == 1)
        engines = [engine for engine in (learner.policy, learner.critic) if engine is not None]
        weights.append([weight for engine in engines for _, weight in engine.full_weights()])
        left.append(streams())
    assert all(map(torch.equal, *weights))
    assert left[0] == left[1]


@pytest.mark.parametrize(
    ("every", "expected"), [(0, []), (1, [0, 1, 2, 3, 4, 5, 6]), (3, [2, 5, 6]), (7, [6]), (10, [6])]
)
def test_when_it_is_due(every: int, expected: list[int]) -> None:
    """Every so many updates, and before the last one: a short run has one look too."""
    drift = StartDrift(every)
    assert [index for index in range(7) if drift.is_due(index, 7)] == expected


def test_a_starting_model_that_is_gone_ends_no_run(tiny_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    learner = learner_of(tiny_model, "grpo")

    def gone() -> PolicyModel:
        raise UserError("model.path: cannot load 'm'")

    learner.drift = StartDrift(1, gone)
    result = learner.update(random_samples(12), 0)
    assert math.isnan(to_floats(result.metrics)[KEY])
    assert not result.skipped
    assert "model.path: cannot load 'm'" in caplog.text
