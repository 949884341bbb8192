"""Greedy answers of starting weights are asked for once, and no others are remembered."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest

from cluster.study.remembered import Answers, RememberingWorker
from rollout.component import ComponentSpec
from rollout.config import RolloutConfig, SamplingConfig
from rollout.sampling.engine import Completion, LoadOutcome
from rollout.sampling.vllm_inline import InlineVllmEngine
from rollout.sampling.weight_check import TensorFact, facts_of
from rollout.trajectory import FinishReason, Prompt, SampleRequest


class CountingEngine:
    """Answers each prompt with its number of calls."""

    def __init__(self) -> None:
        self.num_calls = 0

    async def generate(self, token_ids: tuple[int, ...], sampling: SamplingConfig, seed: int | None) -> Completion:
        self.num_calls += 1
        return Completion(
            token_ids=(6 + self.num_calls,),
            logprobs=(-0.1,),
            text="",
            finish_reason=FinishReason.STOP,
            policy_version_min=0,
            policy_version_max=0,
        )

    async def load_weights(self, weights: Any, facts: Any, version: int) -> LoadOutcome:
        return LoadOutcome((), (), 0.0)

    async def set_version(self, version: int) -> None:
        """Nothing to do."""


PROMPTS = [Prompt(prompt_id=f"p{i}", messages=(), token_ids=(1, 6 + i), reference="1", task="chain") for i in range(2)]


async def worker_with(answers: Answers, engine: CountingEngine, model: str, task: str = "chain") -> RememberingWorker:
    worker = RememberingWorker(
        answers,
        name="rollout-0",
        model_path=model,
        tokenizer_path=model,
        config=RolloutConfig(max_prompt_tokens=8),
        run_seed=0,
        on_gpu=False,
        task=ComponentSpec(type=task),
    )
    await worker.serve(cast(InlineVllmEngine, engine))
    return worker


def facts_with(value: float, checksums: bool = True) -> dict[str, TensorFact]:
    return facts_of({"w": np.full(3, value, dtype=np.float32)}, checksums)


@pytest.fixture
def model(tiny_model: Any) -> str:
    return str(tiny_model)


async def test_equal_starting_weights_are_asked_once(model: str) -> None:
    answers, engine = Answers(), CountingEngine()
    first, second = await worker_with(answers, engine, model), await worker_with(answers, engine, model)
    for worker in (first, second):
        await worker.load_weights({}, facts_with(1.0), 0)
        found = [(await worker.respond_greedily(SampleRequest(prompt, 0))).token_ids[-1] for prompt in PROMPTS]
        assert found == [7, 8]
    assert engine.num_calls == 2


@pytest.mark.parametrize(
    ("facts", "version"),
    [(facts_with(2.0), 0), (facts_with(1.0), 1), (facts_with(1.0, checksums=False), 0)],
    ids=["other weights", "after an update", "without checksums"],
)
async def test_others_are_asked_anew(facts: dict[str, TensorFact], version: int, model: str) -> None:
    answers, engine = Answers(), CountingEngine()
    for given, number in ((facts_with(1.0), 0), (facts, version)):
        worker = await worker_with(answers, engine, model)
        await worker.load_weights({}, given, number)
        await worker.respond_greedily(SampleRequest(PROMPTS[0], 0))
    assert engine.num_calls == 2


async def test_training_samples_are_never_remembered(model: str) -> None:
    engine = CountingEngine()
    worker = await worker_with(Answers(), engine, model)
    await worker.load_weights({}, facts_with(1.0), 0)
    for _ in range(2):
        await worker.sample(SampleRequest(PROMPTS[0], 0))
    assert engine.num_calls == 2
