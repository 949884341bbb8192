"""Where weights, optimiser states and the reference are: real ranks over gloo, against plain torch."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.pools.checkpoint_saver import CheckpointSaver
from actors.workers.learner_worker import LearnerSpec
from learner.config import LearnerConfig, ModelConfig
from learner.metrics import to_floats
from rollout.trajectory import ScoredTrajectory
from tests.integration.learner_ranks import TestedRanks, ranks
from tests.learner.plain_learner import plain_learner, random_samples

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.usefixtures("ray_local")]

LR: dict[str, Any] = {"policy_lr": 1e-3, "critic_lr": 1e-3, "lr_warmup_frac": 0.0, "adam_eps": 1e-3}
CONFIG = LearnerConfig(**LR, micro_batch_tokens=120)
OPTIONS: dict[str, Any] = {"num_epochs": 1, "num_minibatches": 2, "kl_coef": 0.05}
BUCKETS = {"zero_optimization": {"reduce_bucket_size": 50_000, "allgather_bucket_size": 50_000}}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "stage 2, optimiser in host memory": ({"offload": "optimizer", "deepspeed": BUCKETS}, {}),
    "stage 3, reference split, activations again": (
        {"zero_stage": 3, "reference": "sharded"},
        {"gradient_checkpointing": True},
    ),
    "stage 3, all in host memory": (
        {"zero_stage": 3, "offload": "all", "reference": "offloaded"},
        {"attention": "eager", "pack_rows": False},
    ),
}
HELD = dict(zip(CASES, ((True, True), (False, False), (False, True)), strict=True))
"""Whether a rank holds whole weights of the policy and of the reference while neither runs."""


@pytest.mark.parametrize("case", CASES)
def test_numbers_do_not_depend_on_where_they_are(case: str, tiny_model: Path, tmp_path: Path) -> None:
    of_learner, of_model = CASES[case]
    oracle = plain_learner(tiny_model, "ppo", OPTIONS, CONFIG, num_updates=3)
    expected = [to_floats(oracle.update(random_samples(6, step), step).metrics) for step in range(3)]
    config = CONFIG.model_copy(update=of_learner)
    model = ModelConfig(path=str(tiny_model), **of_model)
    with ranks(2, LearnerSpec(model, config, "ppo", OPTIONS, num_updates=3, kl_to_start_every=1)) as group:
        found, refused = [], ""
        for step in range(3):
            if step == 2:  # what was forgotten must not come back
                refused = group.call_blocking("update", endless(), step, timeout_s=60)[0].skipped
            result = group.call_blocking("update", random_samples(6, step), step, timeout_s=60)[0]
            found.append(to_floats(result.metrics))
            if step == 1:
                save(group, tmp_path, 2)
        (weights, _), _ = group.call_blocking("export_weights", False, timeout_s=60)
        held = group.call_blocking("held_numbers", timeout_s=60)
        group.call_blocking("load", str(tmp_path / "step-2"), timeout_s=90)
        again = group.call_blocking("update", random_samples(6, 2), 2, timeout_s=60)[0]
    assert to_floats(again.metrics) == pytest.approx(found[2], rel=0.0, abs=0.0, nan_ok=True)
    assert held == [HELD[case]] * 2
    assert "not finite" in refused
    for step in range(3):
        assert "policy/kl_to_start" in found[step]
        for key in (key for key in expected[step] if not key.startswith("learner/")):
            wanted = pytest.approx(expected[step][key], rel=2e-3, abs=1e-4, nan_ok=True)
            assert found[step][key] == wanted, f"{key} at step {step}"
    for name, weight in oracle.policy.full_weights():
        np.testing.assert_allclose(weights[name.removeprefix("lm.")], weight.numpy(), rtol=0, atol=2e-5, err_msg=name)


def save(group: TestedRanks, checkpoints: Path, step: int) -> None:
    """What a run does to save, without training meanwhile."""

    async def begin_and_finish() -> None:
        saver = CheckpointSaver(group, checkpoints, keep=9, timeout_s=60)
        await saver.begin(step, {})
        await saver.finish()

    asyncio.run(begin_and_finish())


def endless() -> list[ScoredTrajectory]:
    """A batch whose gradient cannot be taken, so that every engine has to forget one."""
    return [replace(sample, reward=1e38 * (-1) ** i) for i, sample in enumerate(random_samples(4))]
