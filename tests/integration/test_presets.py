"""Every preset trains on the demo task through real Ray, vLLM and DeepSpeed, all in the same processes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from actors.learner_worker import LearnerSpec
from cluster.config import RunConfig, load_config
from cluster.controller_host import Cast, ControllerHost
from cluster.workers import Workers, create_workers
from learner.algorithms import PRESETS, build_algorithm
from tests.integration.whole_runs import WriteConfig, read_metrics

pytestmark = pytest.mark.slow

NUM_STEPS = 20
TRAINING = {"num_steps": NUM_STEPS, "prompts_per_step": 4, "samples_per_prompt": 4, "num_eval_prompts": 4}


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> str:
    return str(tiny_model)


class ControllerProcess:
    """Holds one controller after the other; to start a process for each would take longer than to train."""

    async def train(self, config: RunConfig, run_dir: str, model: str, cast: Cast) -> dict[str, Any]:
        """What :class:`ControllerHost` does with a run."""
        host = ControllerHost(config, run_dir, model, cast)
        host.prepare(0, None)
        return await host.run()


@pytest.fixture(scope="module")
def controller(ray_local: None) -> Iterator[Any]:
    actor = ray.remote(ControllerProcess).options(num_cpus=0).remote()
    yield actor
    ray.kill(actor)


@pytest.fixture(scope="module")
def workers(ray_local: None, model: str) -> Iterator[Workers]:
    """One engine and one learner process, for all presets one after the other."""
    config = RunConfig.model_validate(
        {
            "model": {"path": model},
            "rollout": {"max_prompt_tokens": 48, "kv_cache_mib": 64, "sampling": {"max_response_tokens": 12}},
            "learner": {"micro_batch_tokens": 4096},
            "reward": {"noise": [{"type": "symmetric_flip", "p": 0.3}]},
            "training": TRAINING,
        }
    )
    workers = create_workers(config, model, model)
    try:
        ray.get([worker.start.remote() for worker in workers.rollouts], timeout=300)
        workers.engines_started = True
        yield workers
    finally:
        workers.stop(30.0)


def small(preset: str) -> dict[str, Any]:
    """The preset with a critic of a size that suits the tiny model."""
    options = PRESETS[preset].options
    quantiles = options.get("critic", {}).get("num_quantiles", 200 if "dvpo" in PRESETS[preset].type else 1)
    shrunk: dict[str, Any] = {"preset": preset}
    if quantiles > 16:
        shrunk["critic"] = {"num_quantiles": 16}
    if "dvpo" in PRESETS[preset].type:
        shrunk |= {"alpha": 0.25, "beta": 0.25}
    return shrunk


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_preset_trains_for_twenty_steps(
    preset: str, workers: Workers, controller: Any, model: str, write_config: WriteConfig, tmp_path: Path
) -> None:
    noise = {"noise": [{"type": "symmetric_flip", "p": 0.3}]}
    config = load_config(write_config(training=TRAINING, reward=noise, algorithm=small(preset)))
    (learner,) = workers.learners
    host, port = ray.get(learner.address.remote())
    spec = LearnerSpec(
        config.model,
        config.learner,
        config.algorithm.name,
        config.algorithm.options,
        NUM_STEPS,
        limits=config.guards.update_limits(),
    )
    ray.get(learner.setup.remote(0, 1, host, port, spec), timeout=120)
    cast = Cast(workers.rollouts, workers.rewards, workers.learners, workers.rollout_factory, workers.reward_factory)
    try:
        result = ray.get(controller.train.remote(config, str(tmp_path), model, cast), timeout=300)
    finally:
        ray.get(learner.shutdown.remote(), timeout=60)
    assert result["step"] == NUM_STEPS
    steps = read_metrics(tmp_path)
    assert [step["step"] for step in steps] == list(range(1, NUM_STEPS + 1))
    allowed = {"critic/explained_variance", "reward/false_positive_rate", "reward/false_negative_rate", "reward/j"}
    for step in steps:
        bad = {key for key, value in step.items() if value is None or not math.isfinite(value)}
        assert bad <= allowed, f"not finite after step {step['step']}: {sorted(bad)}"
    first = build_algorithm(config.algorithm.name, config.algorithm.options).critic_only_updates(NUM_STEPS)
    assert all("policy/grad_norm" not in step for step in steps[:first])
    assert all(step["policy/grad_norm"] >= 0.0 for step in steps[first:])
