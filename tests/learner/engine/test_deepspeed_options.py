"""What may be added to DeepSpeed's configuration, and what a run sets itself."""

from __future__ import annotations

from typing import Any

import pytest

from learner.config import LearnerConfig, ModelConfig, check_compatible
from learner.engine.deepspeed_options import deepspeed_settings, refusals, with_fitting_bucket
from rollout.component import UserError


def test_what_is_added_is_merged_section_by_section() -> None:
    added = {
        "zero_optimization": {"reduce_bucket_size": 7, "offload_optimizer": {"ratio": 0.5}},
        "aio": {"a": 1},
    }
    found = deepspeed_settings(
        LearnerConfig(zero_stage=3, offload="all", max_grad_norm=0.5, deepspeed=added), bfloat16=True, on_gpu=True
    )
    host = {"device": "cpu", "pin_memory": True}
    assert found["zero_optimization"] == {
        "stage": 3,
        "reduce_bucket_size": 7,
        "offload_optimizer": {**host, "ratio": 0.5},
        "offload_param": host,
    }
    assert (found["gradient_clipping"], found["aio"], found["bf16"]["enabled"]) == (0.5, {"a": 1}, True)
    plain = deepspeed_settings(LearnerConfig(zero_stage=0), bfloat16=False, on_gpu=False)
    assert plain["zero_optimization"] == {"stage": 0} and plain["gradient_clipping"] == 0.0


@pytest.mark.parametrize(
    ("options", "path", "why"),
    [
        ({"optimizer": {"type": "Adam"}}, "optimizer", r"not to be set here: they are learner\.policy_lr"),
        ({"zero_optimization": {"stage": 1}}, "zero_optimization.stage", r"it is learner\.zero_stage"),
        (
            {"zero_optimization": {"offload_param": {"device": "nvme"}}},
            "zero_optimization.offload_param.device",
            r"is learner\.offload",
        ),
        ({"zero_optimisation": {}}, "zero_optimisation", r"no section .* did you mean 'zero_optimization'"),
        (
            {"zero_optimization": {"zero_quantized_gradients": True}},
            "zero_optimization.zero_quantized_gradients",
            "round",
        ),
    ],
)
def test_what_is_refused(options: dict[str, Any], path: str, why: str) -> None:
    assert [".".join(found) for found, _ in refusals(options)] == [path]
    with pytest.raises(UserError, match=rf"^learner\.deepspeed\.{path}: .*{why}"):
        deepspeed_settings(LearnerConfig(deepspeed=options), bfloat16=False, on_gpu=False)


@pytest.mark.parametrize(
    ("model", "learner", "message"),
    [
        ({}, {"offload": "all"}, r"^learner\.offload: 'all' needs learner\.zero_stage 3"),
        ({}, {"offload": "optimizer", "zero_stage": 0}, r"^learner\.offload: 'optimizer' needs .* 1, 2 or 3"),
        ({}, {"reference": "sharded"}, r"^learner\.reference: 'sharded' needs learner\.zero_stage 3"),
        ({"attention": "sdpa"}, {}, r"^model\.attention: has no effect on packed rows"),
    ],
)
def test_combinations_that_cannot_work(model: dict[str, Any], learner: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_compatible(ModelConfig(path="x", **model), LearnerConfig(**learner))


def test_activations_of_large_models_are_computed_again() -> None:
    assert [ModelConfig(path="x").recomputes(n) for n in (999_999_999, 10**9)] == [False, True]
    assert [ModelConfig(path="x", gradient_checkpointing=on).recomputes(10**9) for on in (False, True)] == [False, True]


@pytest.mark.parametrize(
    ("given", "num_trained", "expected"),
    [({}, 1000, 1000), ({}, 10**10, 500_000_000), ({"reduce_bucket_size": 77}, 1000, 77), ({}, 0, 1)],
)
def test_a_bucket_for_gradients_is_no_larger_than_they_are(
    given: dict[str, int], num_trained: int, expected: int
) -> None:
    options = {"zero_optimization": given} if given else {}
    settings = deepspeed_settings(LearnerConfig(deepspeed=options), bfloat16=False, on_gpu=False)
    found = with_fitting_bucket(settings, num_trained)
    assert found["zero_optimization"] == {**settings["zero_optimization"], "reduce_bucket_size": expected}
