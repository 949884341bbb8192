"""From a request to a trajectory: seed, sample, decode."""

from __future__ import annotations

from typing import Any

from rollout.config import SamplingConfig
from rollout.engine import Engine
from rollout.seeding import stream_seed
from rollout.trajectory import SampleRequest, Trajectory


class Runner:
    """Turns requests into trajectories with one engine.

    Args:
        engine: samples tokens.
        tokenizer: a Hugging Face tokenizer, for decoding.
        sampling: how training responses are sampled.
        run_seed: first part of the name of every random stream.
        name: recorded in each trajectory.
    """

    def __init__(self, engine: Engine, tokenizer: Any, sampling: SamplingConfig, run_seed: int, name: str) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._sampling = sampling
        self._greedy = sampling.model_copy(update={"temperature": 0.0})
        self._run_seed = run_seed
        self._name = name

    async def sample(self, request: SampleRequest) -> Trajectory:
        """Sample one response. The same weights and request give the same trajectory in any process."""
        seed = stream_seed(self._run_seed, request.prompt.prompt_id, request.sample_index, "sampling")
        return await self._run(request, self._sampling, seed)

    async def answer(self, request: SampleRequest) -> Trajectory:
        """The greedy response, for evaluation."""
        return await self._run(request, self._greedy, None)

    async def _run(self, request: SampleRequest, sampling: SamplingConfig, seed: int | None) -> Trajectory:
        prompt_ids = request.prompt.token_ids
        completion = await self._engine.generate(prompt_ids, sampling, seed)
        response_ids = completion.token_ids
        padding = len(prompt_ids)
        return Trajectory(
            prompt_id=request.prompt.prompt_id,
            sample_index=request.sample_index,
            token_ids=prompt_ids + response_ids,
            action_mask=(False,) * padding + (True,) * len(response_ids),
            rollout_logprobs=(0.0,) * padding + completion.logprobs,
            response_text=self._tokenizer.decode(list(response_ids), skip_special_tokens=True),
            finish_reason=completion.finish_reason,
            policy_version_min=completion.policy_version_min,
            policy_version_max=completion.policy_version_max,
            engine=self._name,
        )
