"""Real learner ranks with numbers that go wrong on one of them: no rank changes anything, and all go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray

from learner.config import LearnerConfig, ModelConfig
from learner.metrics import to_floats
from tests.integration.learner_ranks import ranks
from tests.integration.test_learner_ranks import spec
from tests.learner.plain_learner import random_samples

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.usefixtures("ray_local")]


@pytest.mark.parametrize(
    ("world", "zero_stage", "dtype"), [(1, 0, "float32"), (2, 2, "float32"), (2, 3, "float32"), (2, 1, "bfloat16")]
)
def test_all_ranks_refuse_a_gradient_that_is_not_finite_on_one(
    world: int, zero_stage: int, dtype: Any, tiny_model: Path
) -> None:
    options = {"critic": {"num_heads": 2, "num_quantiles": 32}, "reward_correction": ["normalise"]}
    config = LearnerConfig(policy_lr=1e-3, critic_lr=1e-3, micro_batch_tokens=120, zero_stage=zero_stage)
    what = spec(
        tiny_model,
        "dvpo",
        learner=config,
        algorithm_options=options,
        model=ModelConfig(path=str(tiny_model), dtype=dtype),
    )
    with ranks(world, what) as group:

        def update(step: int) -> Any:
            results = group.call_blocking("update", ray.put(random_samples(8, step)), step, timeout_s=180)
            assert all(result == results[0] for result in results)
            return results[0]

        def held() -> list[dict[str, str]]:
            return list(group.call_blocking("held", timeout_s=180))

        assert update(0).skipped == ""
        for engine in ("policy", "critic"):
            before = held()
            group.call_blocking("spoil", world - 1, engine, timeout_s=60)
            result = update(1)
            assert result.skipped.startswith(
                f"update 1, epoch 0, mini-batch 0: the {engine} gradient is not finite (its norm is up to nan)"
            )
            assert result.skipped.endswith(f" on rank {world - 1}")
            assert to_floats(result.metrics)["guard/num_skipped_steps"] == 1.0
            assert held() == before
            group.call_blocking("spoil", -1, engine, timeout_s=60)
        after = to_floats(update(2).metrics)
        end = held()
        assert all(one[key] != other[key] for one, other in zip(before, end, strict=True) for key in one)
    with ranks(world, what) as group:  # the same without what was refused
        assert update(0).skipped == ""
        assert to_floats(update(2).metrics) == after
        assert held() == end
