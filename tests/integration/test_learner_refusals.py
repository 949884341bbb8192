"""Real learner ranks with numbers that go wrong on one of them: no rank changes anything, and all go on."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from torch import Tensor

from actors.learner_worker import LearnerWorker
from learner.config import LearnerConfig, ModelConfig
from learner.metrics import to_floats
from tests.integration.test_learner_ranks import ranks, spec
from tests.learner.plain_learner import random_samples

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.usefixtures("ray_local")]


class SpoiltGradient(torch.autograd.Function):
    """What it is given, with a gradient of NaN."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * math.nan


class SpoiltRank(LearnerWorker):
    """A rank whose backward pass can be spoilt, and that tells what it holds."""

    def spoil(self, rank: int, engine: str) -> None:
        """From now on the gradient of a model is NaN on one rank; rank -1 cures all."""
        target = getattr(self._ready, engine)
        target.__dict__.pop("forward", None)
        if rank == self.rank:
            forward = target.forward

            def spoilt(**inputs: object) -> dict[str, Tensor]:
                return {name: SpoiltGradient.apply(value) for name, value in forward(**inputs).items()}

            target.forward = spoilt

    def held(self) -> dict[str, str]:
        """Digests of this rank's weights, optimiser state, and the algorithm's scales and counters."""
        learner = self._ready
        digests = {"algorithm": repr((learner.algorithm.state_dict(), learner.state_dict()))}
        for name, engine in (("policy", learner.policy), ("critic", learner.critic)):
            assert engine is not None
            weights = hashlib.sha256()
            for parameter in engine.module.parameters():
                part = getattr(parameter, "ds_tensor", parameter)  # this rank's part under ZeRO-3
                weights.update(part.detach().float().numpy().tobytes())
            digests[f"{name} weights"] = weights.hexdigest()
            wrapped = engine._engine.optimizer  # type: ignore[attr-defined]
            optimiser = hashlib.sha256()
            for state in getattr(wrapped, "optimizer", wrapped).state.values():
                for key in sorted(state):
                    optimiser.update(torch.as_tensor(state[key]).detach().float().numpy().tobytes())
            digests[f"{name} optimiser"] = optimiser.hexdigest()
        return digests


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
    with ranks(world, what, SpoiltRank) as group:

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
    with ranks(world, what, SpoiltRank) as group:  # the same without what was refused
        assert update(0).skipped == ""
        assert to_floats(update(2).metrics) == after
        assert held() == end
