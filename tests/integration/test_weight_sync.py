"""Weights that change, vanish or are skipped between a learner and a real vLLM engine are caught by the publish."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import pytest
import pytest_asyncio
import torch
from transformers import AutoModelForCausalLM

import rollout.sampling.vllm_engine
from actors.faults import WorkerDied
from actors.pools.learner_ranks import LearnerRanks
from actors.pools.rollout_pool import RolloutPool
from actors.pools.weight_sync import ObjectStoreRoute
from rollout.config import RolloutConfig, SamplingConfig
from rollout.sampling.vllm_engine import VllmEngine
from rollout.sampling.vllm_transfer import open_nccl_sender
from rollout.sampling.vllm_weights import SharedWeights
from rollout.sampling.weight_check import Canary, TensorFact, WeightMismatchError, canary_tolerance, facts_of
from tests.integration import nccl_stand_in
from tests.integration.engines import model_logprobs, perturb, running_engine, weights_of

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

PROMPT = tuple([5, 6, 7, 8, 9, 10] * 8)
CANARY = Canary(PROMPT, canary_tolerance("float32", "float32"))
TENSOR = "model.layers.1.mlp.down_proj.weight"
Weights = dict[str, np.ndarray]


class Learner:
    """The model in plain transformers, with an update that changes every weight by 5 %, or by less."""

    def __init__(self, path: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)

    async def export_weights(self, checksums: bool) -> tuple[Weights, dict[str, TensorFact]]:
        weights = weights_of(self.model)
        return weights, facts_of(weights, checksums)

    async def logprobs(self, token_ids: Sequence[int]) -> list[float]:
        return [0.0, *model_logprobs(self.model, token_ids).tolist()]

    def shapes(self) -> list[tuple[str, torch.dtype, tuple[int, ...]]]:
        return [(name, weight.dtype, tuple(weight.shape)) for name, weight in self.model.state_dict().items()]

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        yield from self.model.state_dict().items()


class Pool:
    """One engine, and what happens to weights on their way to it."""

    def __init__(self, engine: VllmEngine) -> None:
        self.workers_by_name: dict[str, Any] = {"rollout-0": engine}
        self.tamper: Callable[[Weights], None] = lambda weights: None

    async def every(self, method: str, *arguments: Any) -> dict[str, Any]:
        if method == "load_weights":
            self.tamper(arguments[0])
        return {name: await getattr(engine, method)(*arguments) for name, engine in self.workers_by_name.items()}

    def set_weights(self, load: Callable[[str, Any], Awaitable[None]]) -> None:
        """No worker is lost here."""


def route_of(learner: Learner, pool: Pool) -> ObjectStoreRoute:
    """The route reads of both what the two classes here have."""
    return ObjectStoreRoute(cast(LearnerRanks, learner), cast(RolloutPool, pool), CANARY, 60.0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tiny_model: Path) -> AsyncIterator[VllmEngine]:
    config = RolloutConfig(max_prompt_tokens=64, sampling={"max_response_tokens": 64}, max_concurrent_requests=8)
    # so that functions can be sent to the engine's process, to put faults into its loader
    async with running_engine(tiny_model, config, "nccl", VLLM_ALLOW_INSECURE_SERIALIZATION="1") as engine:
        yield engine


@pytest.fixture
def learner(tiny_model: Path) -> Learner:
    return Learner(tiny_model)


async def holds(engine: VllmEngine, logprobs: list[float], version: int) -> None:
    """Assert that the engine serves these weights under this version."""
    assert await engine.score(PROMPT) == pytest.approx(logprobs, abs=1e-4)
    completion = await engine.generate(PROMPT, SamplingConfig(max_response_tokens=4), seed=1)
    assert (completion.policy_version_min, completion.policy_version_max) == (version, version)


def flip_a_bit(weights: Weights) -> None:
    weights[TENSOR].reshape(-1).view(np.uint8)[1234] ^= 1


def truncate(weights: Weights) -> None:
    weights[TENSOR] = weights[TENSOR][:-1]


def drop(weights: Weights) -> None:
    del weights[TENSOR]


def add(weights: Weights) -> None:
    weights["model.layers.9.mlp.down_proj.weight"] = weights[TENSOR]


def convert(weights: Weights) -> None:
    weights[TENSOR] = weights[TENSOR].astype(np.float16)


@pytest.mark.parametrize(
    ("tamper", "problem"),
    [
        (flip_a_bit, f"{TENSOR}: expected float32 \\[64, 128\\] with checksum (.{{8}}), found .* checksum (?!\\1)"),
        (truncate, f"{TENSOR}: expected float32 \\[64, 128\\].*, found float32 \\[63, 128\\]"),
        (drop, f"{TENSOR}: missing"),
        (add, "model.layers.9.mlp.down_proj.weight: not expected"),
        (convert, f"{TENSOR}: .* found float16"),
    ],
)
async def test_what_changes_in_transit_is_refused_and_the_old_weights_go_on(
    engine: VllmEngine, learner: Learner, tamper: Callable[[Weights], None], problem: str
) -> None:
    pool = Pool(engine)
    route = route_of(learner, pool)
    perturb(learner.model, 1)
    await route.publish(1)
    old = await learner.logprobs(PROMPT)
    perturb(learner.model, 2)
    pool.tamper = tamper
    with pytest.raises(WeightMismatchError, match=f"weight version 2 is not what rollout-0 holds: {problem}"):
        await route.publish(2)
    await holds(engine, old, 1)
    pool.tamper = lambda weights: None
    report = await route.publish(3)
    assert report.weights_changed
    assert report.canary_gap_max is not None
    assert report.canary_gap_max < CANARY.tolerance / 20
    await holds(engine, await learner.logprobs(PROMPT), 3)


class _TruncatedFile(SharedWeights):
    def __init__(self, weights: Weights) -> None:
        super().__init__(weights)
        os.truncate(self.path, os.stat(self.path).st_size - 100)


class _CorruptedFile(SharedWeights):
    def __init__(self, weights: Weights) -> None:
        super().__init__(weights)
        with open(self.path, "r+b") as file:
            file.seek(-1000, os.SEEK_END)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 0x80]))


@pytest.mark.parametrize(
    ("broken", "problem"), [(_TruncatedFile, "the tensors cannot be read: .*"), (_CorruptedFile, "model.*checksum")]
)
async def test_the_last_hop_into_the_engine_is_checked_too(
    engine: VllmEngine, learner: Learner, monkeypatch: pytest.MonkeyPatch, broken: type, problem: str
) -> None:
    route = route_of(learner, Pool(engine))
    await route.publish(1)
    old = await learner.logprobs(PROMPT)
    perturb(learner.model, 3)
    monkeypatch.setattr(rollout.sampling.vllm_engine, "SharedWeights", broken)
    with pytest.raises(WeightMismatchError, match=problem):
        await route.publish(2)
    await holds(engine, old, 1)


async def with_faulty_loader(engine: VllmEngine, name: str, publish: Callable[[], Awaitable[Any]]) -> None:
    """Publish while the model's own loader, in the engine's process, reads a tensor and forgets it."""

    def skip(worker: Any, name: str | None) -> None:
        cls = type(worker.model_runner.get_model())
        if name is None:
            cls.load_weights = cls.sound_load_weights
            return
        sound = cls.sound_load_weights = cls.load_weights
        cls.load_weights = lambda model, weights: sound(model, (pair for pair in weights if pair[0] != name))

    await engine._engine.collective_rpc(skip, args=(name,))
    try:
        await publish()
    finally:
        await engine._engine.collective_rpc(skip, args=(None,))


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.up_proj.weight"])
async def test_a_part_that_the_loader_skips_is_caught_by_the_canary(
    engine: VllmEngine, learner: Learner, name: str
) -> None:
    """vLLM's own list of loaded parameters has the fused parameter, so only behaviour shows it."""
    route = route_of(learner, Pool(engine))
    await route.publish(1)
    perturb(learner.model, 4)
    with pytest.raises(WeightMismatchError, match=r"canary \(48 tokens\) differ from the learner's by up to"):
        await with_faulty_loader(engine, name, lambda: route.publish(2))
    assert (await route.publish(3)).canary_gap_max < 1e-4  # type: ignore[operator]


async def test_a_whole_parameter_that_the_loader_skips_is_named_and_the_engine_samples_no_more(
    engine: VllmEngine, learner: Learner
) -> None:
    """However little the tensor has changed."""
    route = route_of(learner, Pool(engine))
    await route.publish(1)
    perturb(learner.model, 5, scale=1e-7)
    with pytest.raises(WeightMismatchError, match=r"model.norm.weight: left out by vLLM's loader"):
        await with_faulty_loader(engine, "model.norm.weight", lambda: route.publish(2))
    assert await engine._engine.is_paused()
    report = await route.publish(3)  # sound weights clear the doubt
    assert report.canary_gap_max is not None
    await holds(engine, await learner.logprobs(PROMPT), 3)


async def test_the_canary_does_not_wait_for_requests_in_flight(engine: VllmEngine, learner: Learner) -> None:
    """All slots are taken by responses of 64 tokens; the canary has one of its own and goes first."""
    route = route_of(learner, Pool(engine))
    sampling = SamplingConfig(max_response_tokens=64)
    pending = [asyncio.create_task(engine.generate(PROMPT[:-1], sampling, seed)) for seed in range(24)]
    while (await engine.stats())["running"] < 8:
        await asyncio.sleep(0.001)
    await route.publish(1)
    assert sum(task.done() for task in pending) < 24
    assert all(len(completion.token_ids) > 0 for completion in await asyncio.gather(*pending))


async def test_vllms_nccl_transfer_brings_the_weights_and_a_new_group_closes_the_old_one(
    engine: VllmEngine, learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of vLLM's code on both sides, in two processes; only the communicator and its streams are stand-ins."""
    nccl_stand_in.install(patch=monkeypatch.setattr)
    await engine._engine.collective_rpc(nccl_stand_in.install)
    loop = asyncio.get_running_loop()

    def call(stage: str, payloads: Sequence[Any]) -> None:
        asyncio.run_coroutine_threadsafe(engine.transfer(stage, payloads[0]), loop).result()

    for version in (1, 2):
        perturb(learner.model, 10 + version)
        sender = await asyncio.to_thread(open_nccl_sender, learner, 0, call, 1, 1, "127.0.0.1")
        await engine.pause()
        await asyncio.to_thread(sender.send)
        await engine.set_version(version)
        await engine.resume()
        await holds(engine, await learner.logprobs(PROMPT), version)
        sender.close()
    assert nccl_stand_in.destroyed() == [True, True]
    assert await engine._engine.collective_rpc(nccl_stand_in.destroyed) == [[True, False]]


async def test_a_lost_engine_ends_the_nccl_broadcast_that_waits_for_it(
    learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.distributed.weight_transfer import nccl_engine

    nccl_stand_in.install(patch=monkeypatch.setattr)
    waits, gathered = threading.Event(), []

    class Communicator:
        def __init__(self) -> None:
            self.is_destroyed = threading.Event()

        def broadcast(self, tensor: torch.Tensor, src: int) -> None:
            assert not self.is_destroyed.is_set(), "NCCL must not be asked for anything after its end"
            waits.set()
            assert self.is_destroyed.wait(60.0)

        def destroy(self) -> None:
            self.is_destroyed.set()

    def call(stage: str, payloads: Sequence[Any]) -> None:
        if stage == "update":
            assert waits.wait(60.0)
            raise WorkerDied("engine 1", stage, "its process died")

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for name, weight in Learner.tensors(learner):
            gathered.append(name)
            yield name, weight

    monkeypatch.setattr(nccl_engine, "open_trainer_endpoint", lambda init: Communicator())
    monkeypatch.setattr(learner, "tensors", tensors)
    sender = open_nccl_sender(learner, 0, call, 2, 1, "127.0.0.1")
    sender._trainer.packed_buffer_size_bytes = 1000  # one broadcast is not all
    with pytest.raises(WorkerDied, match="engine 1 failed in update: its process died"):
        await asyncio.to_thread(sender.send)
    assert gathered == list(learner.model.state_dict()), "the other ranks gather all, and this one with them"


async def test_nothing_of_a_transfer_is_left(engine: VllmEngine, learner: Learner) -> None:
    route = route_of(learner, Pool(engine))
    await route.publish(1)
    gc.collect()
    assert not [path for path in Path("/dev/shm").iterdir() if path.name.startswith("dvpo-weights")]
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        assert "dvpo-weights" not in Path(f"/proc/{process.pid}/maps").read_text()
        names = (os.readlink(link) for link in Path(f"/proc/{process.pid}/fd").iterdir() if link.is_symlink())
        assert not [name for name in names if "dvpo-weights" in name]
