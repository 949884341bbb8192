"""Every preset: one update of the tiny model through the learner, with finite metrics, moves policy and critic."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from learner.algorithms.presets import PRESETS
from learner.config import LearnerConfig
from learner.metrics import to_floats
from learner.update.learner import Learner
from tests.learner.plain_learner import random_samples


@pytest.mark.parametrize("preset", PRESETS)
def test_one_update(preset: str, make_learner: Callable[..., Learner]) -> None:
    config = LearnerConfig(policy_lr=1e-3, critic_lr=1e-3, micro_batch_tokens=60, lr_warmup_frac=0.0)
    learner = make_learner(preset, config=config, num_updates=10)
    engines = [engine for engine in (learner.policy, learner.critic) if engine is not None]
    before = [dict(engine.full_weights()) for engine in engines]
    metrics = to_floats(learner.update(random_samples(8), 3).metrics)
    assert [key for key, value in metrics.items() if not math.isfinite(value)] == []
    assert metrics["policy/grad_norm"] > 0.0 and metrics["learner/micro_batches"] > 1
    for engine, weights in zip(engines, before, strict=True):
        still = [name for name, weight in engine.full_weights() if torch.equal(weight, weights[name])]
        frozen_from = learner.algorithm.critic_frozen_from(10)
        if engine is learner.critic and frozen_from is not None and frozen_from <= 3:
            assert len(still) == len(weights)
            continue
        assert len(still) < len(weights) / 4, still
    assert (learner.critic is not None) == learner.algorithm.needs_critic
