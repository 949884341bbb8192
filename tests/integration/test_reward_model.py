"""A reward model in an actor of its own: batches, the model's own scores, and workers that die or hang."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from actors.pools.reward_model_pool import RewardModelClient
from actors.pools.reward_pool import RewardPool
from actors.workers.reward_model_worker import RewardModelWorker, ServingOptions
from actors.workers.reward_worker import RewardWorker
from learner.reward_model.model import RewardModel
from rollout.component import ComponentSpec
from rollout.config import RewardConfig
from rollout.scoring.record import RewardOutcome, RewardRecord
from rollout.trajectory import FinishReason, Prompt, Trajectory

pytestmark = [pytest.mark.slow, pytest.mark.ray]
TEXTS = [f"{'ab' * (index % 7)}{index}" for index in range(60)]


def case(text: str) -> tuple[Prompt, Trajectory]:
    prompt = Prompt(
        prompt_id=text, messages=({"role": "user", "content": f"q {text}"},), token_ids=(1,), reference=None, task="t"
    )
    return prompt, Trajectory(
        prompt_id=text,
        sample_index=0,
        token_ids=(1, 2),
        action_mask=(False, True),
        rollout_logprobs=(0.0, -1.0),
        response_text=text,
        finish_reason=FinishReason.STOP,
        policy_version_min=0,
        policy_version_max=0,
    )


def spy(worker: Any) -> None:
    """Run inside the actor: write down the sizes of batches."""
    compute, worker.sizes = worker._batcher._compute, []

    async def noting(rows: Sequence[list[int]]) -> Sequence[float]:
        worker.sizes.append(len(rows))
        return await compute(rows)  # type: ignore[no-any-return]

    worker._batcher._compute = noting


def hang(worker: Any) -> None:
    """Run inside the actor: its next forward pass never ends."""
    worker._loading.result().score = lambda rows: time.sleep(600)


def expected_scores(folder: Path) -> dict[str, float]:
    """Each conversation by itself through the model, as transformers loads it."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = {}
    for text in TEXTS:
        chat = [*case(text)[0].messages, {"role": "assistant", "content": text}]
        ids = tokenizer(tokenizer.apply_chat_template(chat, tokenize=False), add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            found[text] = model(input_ids=torch.tensor([ids])).logits.item()
    return found


async def score_all(pool: RewardPool, texts: Sequence[str] = TEXTS) -> dict[str, RewardRecord]:
    records = await asyncio.gather(*(pool.score(*case(text)) for text in texts))
    return {record.prompt_id: record for record in records}


def test_a_served_reward_model(ray_local: None, tiny_model: Path, tmp_path: Path) -> None:
    import ray

    RewardModel.start_from(str(tiny_model), 64, seed=0).save(tmp_path)
    expected = expected_scores(tmp_path)
    assert len({round(score, 4) for score in expected.values()}) > 50
    options = ServingOptions(str(tmp_path), 64, 16, 20.0, "float32", "cpu", timeout_s=3.0)
    spec = ComponentSpec(type="model", path=str(tmp_path), max_tokens=64)
    config = RewardConfig(functions=(spec,), timeout_s=40.0, max_retries=2)
    worker = ray.remote(RewardModelWorker).options(num_cpus=0, max_restarts=-1).remote(options)
    service_actor = ray.remote(RewardWorker).options(num_cpus=0, max_concurrency=1000)
    service = service_actor.remote(config, 0, 1, {"reward.functions.0": RewardModelClient([worker])})

    async def story() -> None:
        pool = RewardPool([service], None, config.deadline_s)

        async def check(retries: tuple[bool, ...]) -> None:
            records = await score_all(pool)
            assert {record.outcome for record in records.values()} == {RewardOutcome.SCORED}, records
            assert any(record.num_retries for record in records.values()) in retries
            for text, record in records.items():
                assert record.observed == pytest.approx(expected[text], abs=1e-5), text

        await check(retries=(False,))
        await worker.__ray_call__.remote(spy)
        await check(retries=(False,))
        sizes = await worker.__ray_call__.remote(lambda self: self.sizes)
        assert sum(sizes) == len(TEXTS) and 4 <= max(sizes) <= 16 and len(sizes) <= len(TEXTS) // 2, sizes

        too_long = (await score_all(pool, ["a" * 80]))["a" * 80]
        assert (too_long.outcome, too_long.observed) == (RewardOutcome.ABSTAINED, None)
        assert "tokens, more than 64" in too_long.error

        await worker.__ray_call__.remote(hang)  # it ends itself
        await check(retries=(True,))

        pid = await worker.__ray_call__.remote(lambda self: os.getpid())
        os.kill(pid, signal.SIGKILL)
        await check(retries=(True, False))  # none if the death is known before anything is sent
        assert await worker.__ray_call__.remote(lambda self: os.getpid()) != pid

    try:
        asyncio.run(story())
    finally:
        for actor in (service, worker):
            ray.kill(actor)
