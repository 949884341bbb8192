"""Whether a response has a random stream of its own."""

from __future__ import annotations

import pytest

from rollout.config import RolloutConfig, SamplingConfig
from rollout.conversation.runner import Runner
from rollout.sampling.engine import Completion
from rollout.seeding import stream_seed
from rollout.trajectory import FinishReason, Prompt, SampleRequest


class Engine:
    """Notes the seeds that it is given."""

    def __init__(self) -> None:
        self.seeds: list[int | None] = []

    async def generate(self, token_ids: tuple[int, ...], sampling: SamplingConfig, seed: int | None) -> Completion:
        self.seeds.append(seed)
        return Completion(
            token_ids=(1,),
            logprobs=(0.0,),
            text="",
            finish_reason=FinishReason.STOP,
            policy_version_min=0,
            policy_version_max=0,
        )


class Tokenizer:
    def decode(self, token_ids: list[int], skip_special_tokens: bool) -> str:
        return ""


@pytest.mark.parametrize("seeded", [True, False])
async def test_each_response_has_its_own_stream_or_none(seeded: bool) -> None:
    engine, prompt = Engine(), Prompt(prompt_id="p", messages=(), token_ids=(5,), reference=None, task="t")
    runner = Runner(engine, Tokenizer(), RolloutConfig(), 3, "rollout-0", seeded=seeded)  # type: ignore[arg-type]
    for index in (0, 1):
        await runner.sample(SampleRequest(prompt, index))
    await runner.respond_greedily(SampleRequest(prompt, 0))
    own = [stream_seed(3, "p", index, "sampling") for index in (0, 1)]
    assert engine.seeds == ([*own, None] if seeded else [None, None, None])
