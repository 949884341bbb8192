"""The engine that computes in its caller's process keeps what the one in a process of its own promises.

vLLM sets up torch's distributed group in the process in which it computes, so that process is not the tests' own.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rollout.config import RolloutConfig, SamplingConfig
from rollout.sampling.engine import EngineDeadError
from rollout.sampling.vllm_options import engine_environment
from tests.integration import test_vllm_engine as promises

pytestmark = pytest.mark.slow

ROLLOUT = RolloutConfig(max_prompt_tokens=64, sampling={"max_response_tokens": 64})
OF_THE_ENGINE = (
    promises.test_a_seed_fixes_the_response_whatever_else_runs,
    promises.test_more_prompts_than_one_step_can_compute,
    promises.test_counters_are_vllms_own,
)
OF_ENGINE_AND_MODEL = (
    promises.test_logprobs_are_those_of_the_distribution_sampled_from,
    promises.test_new_weights_are_served_after_each_sync,
    promises.test_requests_in_flight_go_on_with_the_new_weights,
)


def run_checks(model: str) -> list[str]:
    """What has been checked, in a process that has no engine yet."""
    os.environ.update(engine_environment(on_gpu=False))
    return asyncio.run(_checked(model))


async def _checked(path: str) -> list[str]:
    import torch
    from transformers import AutoModelForCausalLM

    from rollout.sampling.vllm_inline import InlineVllmEngine

    engine: Any = InlineVllmEngine(path, ROLLOUT)
    await engine.set_version(0)
    done = []
    for check in OF_THE_ENGINE:
        await check(engine)
        done.append(check.__name__)
    for compare in OF_ENGINE_AND_MODEL:
        await compare(engine, AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32))
        done.append(compare.__name__)
    further = (responses_without_seeds_differ, a_cancelled_request_is_forgotten, a_failed_step_ends_every_call)
    for last in further:
        await last(engine)
        done.append(last.__name__)
    await engine.shutdown()
    return done


async def responses_without_seeds_differ(engine: Any) -> None:
    """From step to step, within one batch and from batch to batch; and the caller's own random numbers stay."""
    import torch

    before = torch.get_rng_state()
    sampling = SamplingConfig(max_response_tokens=24, temperature=2.0)
    found = []
    for _ in range(2):
        batch = (engine.generate(promises.PROMPT, sampling, None) for _ in range(4))
        found += [completion.token_ids for completion in await asyncio.gather(*batch)]
    assert len(set(found)) == len(found)
    assert len({token for token_ids in found for token in token_ids}) > 16
    assert torch.equal(torch.get_rng_state(), before)


async def a_cancelled_request_is_forgotten(engine: Any) -> None:
    request = asyncio.create_task(engine.generate(promises.PROMPT, SamplingConfig(max_response_tokens=64), 0))
    while (await engine.stats())["running"] == 0:
        await asyncio.sleep(0.001)
    request.cancel()
    await asyncio.wait([request])
    assert request.cancelled()
    await engine.generate(promises.PROMPT, SamplingConfig(max_response_tokens=2), 0)
    assert (await engine.stats())["running"] <= 1


async def a_failed_step_ends_every_call(engine: Any) -> None:
    def fail() -> None:
        raise ValueError("out of numbers")

    waiting = [
        asyncio.create_task(engine.generate(promises.PROMPT, SamplingConfig(max_response_tokens=8), seed))
        for seed in range(3)
    ]
    engine._engine.step = fail
    errors = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 20.0)
    assert [type(error) for error in errors] == [EngineDeadError] * 3
    calls: tuple[Callable[[], Awaitable[Any]], ...] = (
        engine.stats,
        lambda: engine.score(promises.PROMPT),
        lambda: engine.load_weights({}, {}, 1),
    )
    for call in calls:
        with pytest.raises(EngineDeadError, match="a step of the engine failed: ValueError: out of numbers"):
            await call()


def test_the_engine_in_its_callers_process_keeps_the_same_promises(tiny_model: Path) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        checked = process.submit(run_checks, str(tiny_model)).result(timeout=180.0)
    assert len(checked) == len(OF_THE_ENGINE) + len(OF_ENGINE_AND_MODEL) + 3
