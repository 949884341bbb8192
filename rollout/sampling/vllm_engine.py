"""A vLLM ``AsyncLLM`` behind the :class:`rollout.sampling.engine.Engine` protocol.

The engine runs in a process of its own; :mod:`rollout.sampling.vllm_inline` has one that runs in the caller's.

vLLM is imported inside methods: naming this module costs nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from rollout.component.loading import without_collections
from rollout.config import RolloutConfig, SamplingConfig
from rollout.sampling.engine import Completion, LoadOutcome
from rollout.sampling.vllm_options import (
    AHEAD,
    EngineCounters,
    completion_of,
    engine_options,
    response_params,
    score_params,
    scores_of,
    settle_load,
)
from rollout.sampling.vllm_weights import SharedWeights
from rollout.sampling.weight_check import TensorFact

T = TypeVar("T")

LOOK_UP_S = 1.0
"""How often a call of the engine's process looks whether that is still there, in seconds."""


class VllmEngine:
    """One vLLM engine: continuous batching, exact log-probabilities, weights that can be replaced while it runs.

    Args:
        model_path: folder or hub id of a causal language model.
        config: see :class:`RolloutConfig`.
        on_gpu: whether the engine has GPUs.
        trust_remote_code: passed on to vLLM.
        transfer_backend: vLLM weight-transfer back end to prepare ("nccl"), or None for weights through files.
    """

    def __init__(
        self,
        model_path: str,
        config: RolloutConfig,
        on_gpu: bool,
        trust_remote_code: bool = False,
        transfer_backend: str | None = None,
    ) -> None:
        with without_collections():
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM

        options = engine_options(model_path, config, on_gpu, trust_remote_code, transfer_backend)
        self._counters = EngineCounters()
        self._engine: Any = AsyncLLM.from_engine_args(AsyncEngineArgs(**options), stat_loggers=[self._counters])
        self._request_ids = itertools.count()

    async def generate(self, token_ids: tuple[int, ...], sampling: SamplingConfig, seed: int | None) -> Completion:
        """See :meth:`rollout.sampling.engine.Engine.generate`. The log-probabilities are those after temperature."""
        return completion_of(await self._final_output(token_ids, response_params(sampling, seed)))

    async def score(self, token_ids: tuple[int, ...]) -> list[float]:
        """See :meth:`rollout.sampling.engine.Engine.score`; at temperature 1, ahead of all requests that wait."""
        return scores_of(token_ids, await self._final_output(token_ids, score_params(), AHEAD))

    async def _final_output(self, token_ids: tuple[int, ...], params: Any, priority: int = 0) -> Any:
        prompt = {"prompt_token_ids": list(token_ids)}
        stream = self._engine.generate(prompt, params, request_id=str(next(self._request_ids)), priority=priority)

        async def last() -> Any:
            return [output async for output in stream][-1]  # one, since only the final one is asked for

        return await self._while_alive(last())

    async def _while_alive(self, call: Awaitable[T]) -> T:
        """Wait for an answer of the engine's process. vLLM never ends some calls when that dies.

        Raises:
            EngineDeadError: it has died.
        """
        answer = asyncio.ensure_future(call)
        try:
            while not (await asyncio.wait({answer}, timeout=LOOK_UP_S))[0]:
                self._require_alive()
            return answer.result()
        finally:
            answer.cancel()

    def _require_alive(self) -> None:
        if self._engine is not None and self._engine.errored:
            raise self._engine.dead_error

    async def load_weights(self, weights: dict[str, Any], facts: Mapping[str, TensorFact], version: int) -> LoadOutcome:
        """See :meth:`rollout.sampling.engine.Engine.load_weights`. The weights pass through a file in shared memory.

        An engine that has started to load and did not finish stays paused: it samples nothing.
        """
        file = await asyncio.to_thread(SharedWeights, weights)
        try:
            await self.pause()
            loading = self._engine.collective_rpc("load_weights_from_file", args=(file.path, dict(facts)))
            results = await self._while_alive(loading)
        finally:
            file.close()
        return await settle_load(self, results, version)

    async def pause(self) -> None:
        """Run no step from here on. Requests stay, without their KV cache, which belongs to the old weights."""
        await self._while_alive(self._engine.pause_generation(mode="keep", clear_cache=True))

    async def resume(self) -> None:
        """Run steps again; the KV cache of requests that stayed is computed anew."""
        await self._while_alive(self._engine.resume_generation())

    async def set_version(self, version: int) -> None:
        """Name the current weights without changing them."""
        await self._while_alive(self._engine.update_weight_version(str(version)))

    async def transfer(self, stage: str, payload: dict[str, Any] | None = None) -> None:
        """One stage of vLLM's own weight-transfer protocol: ``init``, ``start``, ``update`` or ``finish``.

        ``init`` first leaves the group that the engine was in.
        """
        from vllm.distributed.weight_transfer import base

        if stage == "init":
            await self._while_alive(self._engine.shutdown_weight_transfer_engine())
            call = self._engine.init_weight_transfer_engine(base.WeightTransferInitRequest(init_info=payload or {}))
        elif stage == "start":
            call = self._engine.start_weight_update()
        elif stage == "update":
            call = self._engine.update_weights(base.WeightTransferUpdateRequest(update_info=payload or {}))
        elif stage == "finish":
            call = self._engine.finish_weight_update()
        else:
            raise ValueError(f"unknown weight-transfer stage {stage!r}; valid: init, start, update, finish")
        await self._while_alive(call)

    async def stats(self) -> dict[str, float]:
        """See :meth:`rollout.sampling.engine.Engine.stats`. An engine that died while idle is noticed here."""
        self._require_alive()
        counters = self._counters
        return {name: float(value) for name, value in vars(counters).items()}

    async def shutdown(self) -> None:
        """Stop the engine and its child process."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.to_thread(engine.shutdown)
