"""The real vLLM engine: log-probabilities, seeds, and weights replaced while it runs."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
import torch
from transformers import AutoModelForCausalLM

from rollout.component import UserError
from rollout.config import RolloutConfig, SamplingConfig
from rollout.sampling.engine import Completion
from rollout.sampling.engine_args import INEXACT, OWNED, check_values
from rollout.sampling.vllm_engine import VllmEngine
from rollout.sampling.vllm_options import engine_options
from rollout.sampling.weight_check import facts_of
from rollout.trajectory import FinishReason
from tests.integration.engines import model_logprobs, perturb, running_engine

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

PROMPT = tuple([5, 6, 7, 8, 9, 10] * 8)  # longer than one block of the prefix cache


def largest_gap(model: Any, completion: Completion, temperature: float, start: int = 0) -> float:
    full = PROMPT + completion.token_ids
    expected = model_logprobs(model, full, temperature)[len(PROMPT) - 1 + start :]
    return float((torch.tensor(completion.logprobs[start:]) - expected).abs().max())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tiny_model: Path) -> AsyncIterator[VllmEngine]:
    arguments = {"max_num_batched_tokens": 8190, "disable_hybrid_kv_cache_manager": True}
    config = RolloutConfig(max_prompt_tokens=64, sampling={"max_response_tokens": 64}, engine_args=arguments)
    async with running_engine(tiny_model, config) as engine:
        yield engine


async def test_engine_arguments_reach_vllm(engine: VllmEngine) -> None:
    found = engine._engine.vllm_config
    assert found.scheduler_config.max_num_batched_tokens == 8190
    assert found.scheduler_config.disable_hybrid_kv_cache_manager


@pytest.mark.parametrize(
    ("on_gpu", "arguments", "told"),
    [
        (False, {"max_num_batched_token": 1}, "max_num_batched_token: vLLM .* has no such.*'max_num_batched_tokens'"),
        (True, {"xyzzy": 1}, "engine_args.xyzzy: vLLM .* has no such engine argument; its documentation"),
        (True, {"block_size": "wide"}, "engine_args.block_size: Input should be a valid integer.*'wide'"),
        (True, {"compilation_config": {"levl": 3}}, "does not accept these .compilation_config.*levl"),
        (False, {"max_num_batched_tokens": 16}, "does not accept these .max_num_batched_tokens.: .*smaller than"),
        (False, {"attention_backend": "FLSH"}, "does not accept these .attention_backend.: .*FLSH"),
    ],
)  # fmt: skip
async def test_vllm_itself_looks_at_engine_arguments(
    engine: VllmEngine, tiny_model: Path, on_gpu: bool, arguments: dict[str, Any], told: str
) -> None:
    config = RolloutConfig(max_prompt_tokens=64, sampling={"max_response_tokens": 64}, engine_args=arguments)
    with pytest.raises(UserError, match=told):
        check_values(engine_options(str(tiny_model), config, on_gpu), arguments, on_gpu)


async def test_good_engine_arguments_pass_and_the_refused_ones_exist(engine: VllmEngine, tiny_model: Path) -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs

    for on_gpu in (False, True):
        arguments = {"max_num_batched_tokens": 9000, "enable_prefix_caching": False}
        config = RolloutConfig(max_prompt_tokens=64, sampling={"max_response_tokens": 64}, engine_args=arguments)
        check_values(engine_options(str(tiny_model), config, on_gpu), arguments, on_gpu)
    assert {*OWNED, *INEXACT} <= {field.name for field in dataclasses.fields(AsyncEngineArgs)}


async def load(engine: VllmEngine, weights: dict[str, Any], version: int) -> None:
    outcome = await engine.load_weights(weights, facts_of(weights), version)
    assert (outcome.refused, outcome.not_loaded) == ((), ())


@pytest.fixture
def model(tiny_model: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


async def test_logprobs_are_those_of_the_distribution_sampled_from(engine: VllmEngine, model: Any) -> None:
    await load(engine, perturb(model, 1), 1)
    for temperature in (1.0, 0.7):
        sampling = SamplingConfig(temperature=temperature, max_response_tokens=40)
        completion = await engine.generate(PROMPT, sampling, seed=3)
        assert largest_gap(model, completion, temperature) < 1e-4
        assert completion.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)


async def test_a_seed_fixes_the_response_whatever_else_runs(engine: VllmEngine) -> None:
    """Bit by bit: in float32 on a CPU a row does not depend on the others while no layer has over 1024 inputs."""
    sampling = SamplingConfig(max_response_tokens=32)
    alone = await engine.generate(PROMPT, sampling, seed=11)
    await engine.pause()  # forgets the prompt's KV cache, so that it is computed in the crowd
    await engine.resume()
    crowd = await asyncio.gather(*(engine.generate(PROMPT, sampling, seed) for seed in (5, 11, *range(12, 40))))
    assert crowd[1].token_ids == alone.token_ids
    assert crowd[1].logprobs == alone.logprobs
    assert crowd[0].token_ids != alone.token_ids


async def test_more_prompts_than_one_step_can_compute(engine: VllmEngine) -> None:
    """A prompt computed in two parts would kill the engine: random streams on a CPU cannot be rewound."""
    sampling = SamplingConfig(max_response_tokens=4)
    alone = await engine.generate(PROMPT, sampling, seed=399)
    prompts = [(4 + i % 50, 4 + i // 50, *PROMPT[2:]) for i in range(399)] + [PROMPT]  # 400 x 48 tokens, none cached
    completions = await asyncio.gather(*(engine.generate(p, sampling, seed) for seed, p in enumerate(prompts)))
    assert completions[-1].token_ids == alone.token_ids


async def test_new_weights_are_served_after_each_sync(engine: VllmEngine, model: Any) -> None:
    sampling = SamplingConfig(max_response_tokens=24)
    for version in (2, 3, 4):
        await load(engine, perturb(model, version), version)
        completion = await engine.generate(PROMPT, sampling, seed=version)
        assert (completion.policy_version_min, completion.policy_version_max) == (version, version)
        assert largest_gap(model, completion, 1.0) < 1e-4
        scored = await engine.score(PROMPT)
        assert scored[0] == 0.0
        torch.testing.assert_close(torch.tensor(scored[1:]), model_logprobs(model, PROMPT), atol=1e-4, rtol=0)


async def test_requests_in_flight_go_on_with_the_new_weights(engine: VllmEngine, model: Any) -> None:
    sampling = SamplingConfig(max_response_tokens=64)
    await load(engine, perturb(model, 10), 10)
    weights = perturb(model, 11)
    for attempt in range(20):  # until the update falls into the middle of a response
        version = 11 + attempt
        pending = [asyncio.create_task(engine.generate(PROMPT, sampling, seed)) for seed in range(16)]
        while (await engine.stats())["running"] == 0:
            await asyncio.sleep(0.001)
        await load(engine, weights, version)
        completions = await asyncio.gather(*pending)
        spanning = [c for c in completions if c.policy_version_min < c.policy_version_max == version]
        if spanning:
            break
    assert spanning, "no response was open during twenty updates"
    for completion in spanning:
        assert largest_gap(model, completion, 1.0, start=len(completion.token_ids) - 1) < 1e-4


async def test_an_unknown_transfer_stage_is_refused(engine: VllmEngine) -> None:
    with pytest.raises(ValueError, match="unknown weight-transfer stage 'begin'; valid: init"):
        await engine.transfer("begin")


async def test_counters_are_vllms_own(engine: VllmEngine) -> None:
    before = await engine.stats()
    completion = await engine.generate(PROMPT, SamplingConfig(max_response_tokens=8), seed=0)
    grown = {name: value - before[name] for name, value in (await engine.stats()).items()}
    assert grown["generated_tokens"] == len(completion.token_ids)
    assert grown["prompt_tokens"] == len(PROMPT)


async def test_a_call_that_waits_when_the_engine_dies_does_not_wait_for_ever(tiny_model: Path) -> None:
    """Frozen, so that all calls are on their way; then killed. vLLM itself would leave some of them waiting."""
    config = RolloutConfig(max_prompt_tokens=64, kv_cache_mib=16, sampling={"max_response_tokens": 8})
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    async with running_engine(tiny_model, config) as engine:
        started = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
        process = max(started, key=lambda child: child.memory_info().rss)
        process.suspend()
        calls = [engine.set_version(1), engine.pause(), engine.generate(PROMPT, config.sampling, 0)]
        waiting = [asyncio.ensure_future(call) for call in calls]
        assert not (await asyncio.wait(waiting, timeout=1.5))[0]
        process.kill()
        errors = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 20.0)
        assert [type(error).__name__ for error in errors] == ["EngineDeadError"] * 3
        with pytest.raises(Exception, match="EngineCore"):
            await engine.stats()
