"""One engine on several devices, as a run places it: inside a Ray actor that holds all of them. On CPUs here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray.util.placement_group import placement_group, remove_placement_group
from transformers import AutoModelForCausalLM

from actors.workers.rollout_worker import RolloutWorker
from cluster.run.workers import placed
from rollout.config import RolloutConfig
from rollout.sampling.vllm_options import engine_environment
from rollout.sampling.weight_check import facts_of
from tests.integration.engines import model_logprobs, perturb

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.usefixtures("ray_local")]

TOKENS = (5, 6, 7, 8, 9, 10)


def test_two_processes_share_an_engine_inside_one_bundle(tiny_model: Path) -> None:
    """Left to itself vLLM would ask Ray for an actor a shard, since it is in a placement group."""
    bundle = {"CPU": 2.0}
    group = placement_group([bundle])
    config = RolloutConfig(
        max_prompt_tokens=32, sampling={"max_response_tokens": 8}, max_concurrent_requests=2, kv_cache_mib=64,
        engine_process="own", tensor_parallel_size=2,
    )  # fmt: skip
    actor: Any = placed(RolloutWorker, group, 0, bundle, engine_environment(on_gpu=False))
    worker = actor.remote("rollout-0", str(tiny_model), str(tiny_model), config, run_seed=0, on_gpu=False)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    try:
        ray.get(worker.start.remote(), timeout=300)
        before = ray.get(worker.score.remote(TOKENS), timeout=60)
        np.testing.assert_allclose(before[1:], model_logprobs(model, TOKENS), atol=1e-4)
        weights = perturb(model, 1)
        outcome = ray.get(worker.load_weights.remote(weights, facts_of(weights), 1), timeout=60)
        assert (outcome.refused, outcome.not_loaded) == ((), ())
        after = ray.get(worker.score.remote(TOKENS), timeout=60)
        np.testing.assert_allclose(after[1:], model_logprobs(model, TOKENS), atol=1e-4)
        ray.get(worker.stop.remote(), timeout=60)
    finally:
        ray.kill(worker)
        remove_placement_group(group)
