"""Critics with more than quantile heads on real ranks: latent noise, frozen LM head, extra rows, under ZeRO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from actors.workers.learner_worker import LearnerSpec
from learner.config import LearnerConfig, ModelConfig
from learner.metrics import to_floats
from tests.integration.learner_ranks import ranks
from tests.integration.test_learner_ranks import save
from tests.learner.plain_learner import plain_learner, random_samples

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.usefixtures("ray_local")]

CONFIG = LearnerConfig(
    policy_lr=1e-3, critic_lr=1e-3, lr_warmup_frac=0.0, adam_eps=1e-3, micro_batch_tokens=120, max_grad_norm=0.5
)
SIZES = (8, 7, 1, 13)
"""Trajectories of each update: uneven ones, and fewer than ranks."""


@pytest.mark.parametrize(
    ("zero_stage", "preset", "options"),
    [
        (3, "vrpo-kl", {"num_minibatches": 2}),
        (2, "vrpo-dvpo", {"critic": {"num_heads": 2, "num_quantiles": 32}, "curvature_coef": 0.0}),
        (3, "cql-contrast", {"num_minibatches": 2}),
        (0, "vrpo", {}),
    ],
)
def test_two_ranks_equal_plain_torch(
    zero_stage: int, preset: str, options: dict[str, Any], tiny_model: Path, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"zero_stage": zero_stage})
    batches = [random_samples(size, seed) for seed, size in enumerate(SIZES)]
    oracle = plain_learner(tiny_model, preset, options, CONFIG, num_updates=len(SIZES))
    expected = [to_floats(oracle.update(samples, step).metrics) for step, samples in enumerate(batches)]
    spec = LearnerSpec(ModelConfig(path=str(tiny_model)), config, preset, options, num_updates=len(SIZES))
    checkpoint = str(tmp_path / "step-2")

    def train(group: Any, first: int) -> list[dict[str, float]]:
        found = []
        for step in range(first, len(SIZES)):
            results = group.call_blocking("update", ray.put(batches[step]), step, timeout_s=60)
            assert results[0] == results[1]
            found.append(to_floats(results[0].metrics))
            if step == 1:
                save(group, tmp_path, 2)
        return found

    with ranks(2, spec) as group:
        found = train(group, 0)
        weights = group.call_blocking("export_weights", False, timeout_s=60)[0][0]
    for step, (mine, wanted) in enumerate(zip(found, expected, strict=True)):
        assert mine.keys() == wanted.keys()
        for key in (k for k in wanted if not k.startswith("learner/")):
            assert mine[key] == pytest.approx(wanted[key], rel=2e-3, abs=1e-4, nan_ok=True), f"{key} at step {step}"
    exported = dict(weights)
    for name, weight in oracle.policy.full_weights():
        np.testing.assert_allclose(exported[name.removeprefix("lm.")], weight.numpy(), rtol=0, atol=2e-5, err_msg=name)
    with ranks(2, spec) as resumed:
        resumed.call_blocking("load", checkpoint, timeout_s=60)
        assert train(resumed, 2) == found[2:]  # bit by bit
