"""A vLLM ``LLMEngine`` in the caller's own process and event loop, behind the same protocol as ``vllm_engine.py``.

The engine of a rollout worker on CPU, and of studies: it starts in half the time, since vLLM is loaded by one process
instead of two, and nothing is sent between processes. While it computes, nothing else in the process does.

vLLM is imported inside methods: naming this module costs nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any

from rollout.component.loading import without_collections
from rollout.config import RolloutConfig, SamplingConfig
from rollout.sampling.engine import Completion, EngineDeadError, LoadOutcome
from rollout.sampling.vllm_options import (
    AHEAD,
    BLOCK_TOKENS_ON_CPU,
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

ROUNDS_BETWEEN_STEPS = 10
"""How often the event loop goes round between two steps of the engine. A finished response passes through several tasks
before the next request is made; with one round a step, that takes as many steps, which compute half a batch."""


class InlineVllmEngine:
    """One vLLM engine on CPU, stepped by a task of the running event loop for as long as it has requests.

    Who wakes whom: a request that finds no task running starts one. The task makes one step of the engine, answers the
    requests that the step has finished, and lets everything else that is ready run before the next step. So requests
    that are made together are computed together. It ends when no request is left, or while the engine is paused.

    An engine that fails in a step is dead: whoever waits and whoever comes later gets an :class:`EngineDeadError`.

    Args:
        model_path: folder or hub id of a causal language model.
        config: see :class:`RolloutConfig`.
        trust_remote_code: passed on to vLLM.
    """

    def __init__(self, model_path: str, config: RolloutConfig, trust_remote_code: bool = False) -> None:
        with without_collections():
            import torch
            from vllm.engine.arg_utils import EngineArgs
            from vllm.transformers_utils.config import get_config
            from vllm.v1.engine.llm_engine import LLMEngine

        options = engine_options(model_path, config, on_gpu=False, trust_remote_code=trust_remote_code)
        # What two prompts could share is one block then, for which each request would look.
        shares = config.longest_tokens >= 2 * BLOCK_TOKENS_ON_CPU
        kinds = get_config(model_path, trust_remote_code).get_text_config()
        # The state of linear attention is only kept where prompts are computed in parts, which a CPU does not do.
        is_linear = "linear_attention" in (getattr(kinds, "layer_types", None) or ())
        options.setdefault("enable_prefix_caching", shares and not is_linear)
        self._random_state = torch.Generator().manual_seed(options["seed"]).get_state()
        self._counters = EngineCounters()
        self._engine: Any = LLMEngine.from_engine_args(EngineArgs(**options), stat_loggers=[self._counters])
        # vLLM adds a logger of its own, whose many histograms nobody reads here.
        self._engine.logger_manager.stat_loggers = self._engine.logger_manager.stat_loggers[:1]
        self._core: Any = self._engine.engine_core.engine_core
        self._request_ids = itertools.count()
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._stepping: asyncio.Task[None] | None = None
        self._is_paused = False
        self._dead: Exception | None = None

    async def generate(self, token_ids: tuple[int, ...], sampling: SamplingConfig, seed: int | None) -> Completion:
        """See :meth:`rollout.sampling.engine.Engine.generate`. The log-probabilities are those after temperature."""
        return completion_of(await self._final_output(token_ids, response_params(sampling, seed)))

    async def score(self, token_ids: tuple[int, ...]) -> list[float]:
        """See :meth:`rollout.sampling.engine.Engine.score`; at temperature 1, ahead of all requests that wait."""
        return scores_of(token_ids, await self._final_output(token_ids, score_params(), AHEAD))

    async def _final_output(self, token_ids: tuple[int, ...], params: Any, priority: int = 0) -> Any:
        self._require_alive()
        request_id = str(next(self._request_ids))
        # vLLM gives requests names of its own; its answers have the ones that were given to it.
        internal_id = self._engine.add_request(
            request_id, {"prompt_token_ids": list(token_ids)}, params, priority=priority
        )
        answer = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = answer
        self._step_on()
        try:
            return await answer
        except asyncio.CancelledError:
            self._engine.abort_request([internal_id], internal=True)
            raise
        finally:
            self._waiting.pop(request_id, None)

    def _require_alive(self) -> None:
        if self._dead is not None:
            raise self._dead

    def _step_on(self) -> None:
        """See to it that the engine is stepped, unless it is paused."""
        if not self._is_paused and (self._stepping is None or self._stepping.done()):
            self._stepping = asyncio.get_running_loop().create_task(self._step_while_needed())

    async def _step_while_needed(self) -> None:
        import torch

        try:
            # Once around the loop first: whoever else is about to make a request makes it, and is computed with it.
            await asyncio.sleep(0)
            while self._waiting and not self._is_paused:
                # The random numbers of this process belong to the learner; sampling has streams of its own, and one for
                # all requests without a seed.
                with torch.random.fork_rng(devices=()):
                    torch.set_rng_state(self._random_state)
                    outputs = self._engine.step()
                    self._random_state = torch.get_rng_state()
                for output in outputs:
                    answer = self._waiting.get(output.request_id)
                    if answer is not None and not answer.done():
                        answer.set_result(output)
                for _ in range(ROUNDS_BETWEEN_STEPS):
                    await asyncio.sleep(0)
        except Exception as error:  # whatever it is, those who wait are to hear it
            self._dead = EngineDeadError(f"a step of the engine failed: {type(error).__name__}: {error}")
            self._dead.__cause__ = error
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(self._dead)

    async def load_weights(self, weights: dict[str, Any], facts: Mapping[str, TensorFact], version: int) -> LoadOutcome:
        """See :meth:`rollout.sampling.engine.Engine.load_weights`. The weights pass through a file in memory.

        An engine that has started to load and did not finish stays paused: it samples nothing.
        """
        import torch

        self._require_alive()
        file = SharedWeights(weights)
        try:
            await self.pause()
            with torch.random.fork_rng(devices=()):
                results = self._engine.collective_rpc("load_weights_from_file", args=(file.path, dict(facts)))
        finally:
            file.close()
        return await settle_load(self, results, version)

    async def pause(self) -> None:
        """Run no step from here on. Requests stay, without their KV cache, which belongs to the old weights."""
        self._is_paused = True
        self._core.pause_scheduler(mode="keep", clear_cache=True)

    async def resume(self) -> None:
        """Run steps again; the KV cache of requests that stayed is computed anew."""
        self._core.resume_scheduler()
        self._is_paused = False
        if self._waiting:
            self._step_on()

    async def set_version(self, version: int) -> None:
        """Name the current weights without changing them."""
        self._engine.set_weight_version(str(version))

    async def stats(self) -> dict[str, float]:
        """See :meth:`rollout.sampling.engine.Engine.stats`. A dead engine is noticed here too."""
        self._require_alive()
        return {name: float(value) for name, value in vars(self._counters).items()}

    async def shutdown(self) -> None:
        """Free the engine."""
        self._engine.engine_core.shutdown()
