"""A vLLM ``AsyncLLM`` behind the :class:`rollout.sampling.engine.Engine` protocol.

The only file that drives vLLM's engine.

vLLM is imported inside methods: naming this module costs nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from rollout.config import RolloutConfig, SamplingConfig
from rollout.sampling.engine import Completion, LoadOutcome
from rollout.sampling.vllm_weights import SharedWeights
from rollout.sampling.weight_check import TensorFact
from rollout.trajectory import FinishReason

T = TypeVar("T")

LOOK_UP_S = 1.0
"""How often a call of the engine's process looks whether that is still there, in seconds."""

MAX_BATCHED_TOKENS_ON_CPU = 8192
"""Tokens one engine step computes at most; a longer context raises it."""

AHEAD = -1
"""Priority of a request that is scheduled before all others."""


def engine_environment(on_gpu: bool) -> dict[str, str]:
    """Environment variables that must be set before vLLM is imported in a rollout worker's process.

    On CPU each engine gets one thread and is not pinned: two pinned engines would share the first core. The worker
    runs inside the engine's one child process instead of a second one. oneDNN keeps a compiled kernel for each of the
    last so many shapes of a batch, by default 1024, which is a process that grows for hours.
    """
    common = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1", "TOKENIZERS_PARALLELISM": "false"}
    if on_gpu:
        return {**common, "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    return {
        **common,
        "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "TORCHDYNAMO_DISABLE": "1",
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    }


class EngineCounters:
    """vLLM's own counters, accumulated since the engine started. Handed to vLLM as a stat logger."""

    def __init__(self) -> None:
        self.generated_tokens = 0
        self.prompt_tokens = 0
        self.preemptions = 0
        self.running = 0
        self.waiting = 0
        self.kv_cache_usage = 0.0

    def __call__(self, vllm_config: Any, engine_index: int = 0) -> EngineCounters:
        """vLLM asks for a factory; one engine has one set of counters."""
        return self

    def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
        """Called by vLLM after each engine step."""
        if scheduler_stats is not None:
            self.running = scheduler_stats.num_running_reqs
            self.waiting = scheduler_stats.num_waiting_reqs
            self.kv_cache_usage = scheduler_stats.kv_cache_usage
        if iteration_stats is not None:
            self.generated_tokens += iteration_stats.num_generation_tokens
            self.prompt_tokens += iteration_stats.num_prompt_tokens
            self.preemptions += iteration_stats.num_preempted_reqs

    def log_engine_initialized(self) -> None:
        """Part of vLLM's interface; nothing to say."""

    def log(self) -> None:
        """Part of vLLM's interface; the counters are read by ``stats``."""

    def record_sleep_state(self, *_: Any, **__: Any) -> None:
        """Part of vLLM's interface; sleep mode is not used."""


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
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        options: dict[str, Any] = {
            "model": model_path,
            "dtype": config.dtype,
            "max_model_len": config.longest_tokens,
            "max_num_seqs": config.max_concurrent_requests + 1,  # one for `score`, which is not to wait for a response
            "scheduling_policy": "priority",
            "enforce_eager": config.enforce_eager,
            "tensor_parallel_size": config.tensor_parallel_size,
            "trust_remote_code": trust_remote_code,
            "logprobs_mode": "processed_logprobs",
            "worker_extension_cls": "rollout.sampling.vllm_weights.WeightLoaderExtension",
            "disable_log_stats": False,
        }
        if on_gpu:
            options["gpu_memory_utilization"] = config.gpu_memory_utilization
        else:
            # A partly computed prompt samples a token that is thrown away, and vLLM then rewinds the request's random
            # stream, which generators on a CPU cannot do: the engine would die. So prompts are computed whole.
            options |= {
                "kv_cache_memory_bytes": config.kv_cache_mib << 20,
                "block_size": 32,
                "enable_chunked_prefill": False,
                "max_num_batched_tokens": max(MAX_BATCHED_TOKENS_ON_CPU, options["max_model_len"]),
            }
        if transfer_backend is not None:
            options["weight_transfer_config"] = {"backend": transfer_backend}
        self._counters = EngineCounters()
        self._engine: Any = AsyncLLM.from_engine_args(AsyncEngineArgs(**options), stat_loggers=[self._counters])
        self._request_ids = itertools.count()

    async def generate(self, token_ids: tuple[int, ...], sampling: SamplingConfig, seed: int | None) -> Completion:
        """See :meth:`rollout.sampling.engine.Engine.generate`. The log-probabilities are those after temperature."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        # logprobs=0 is the sampled token alone. Text is only made where stop strings have to be looked for.
        params = SamplingParams(
            temperature=sampling.temperature,
            max_tokens=sampling.max_response_tokens,
            stop=list(sampling.stop),
            seed=seed,
            logprobs=0,
            detokenize=bool(sampling.stop),
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        output = (await self._final_output(token_ids, params)).outputs[0]
        # A response that ran through a weight sync has several spans, each with the weights that sampled it.
        versions = [int(span.version) for span in output.weight_versions or ()]
        chosen = tuple(output.token_ids)
        return Completion(
            token_ids=chosen,
            logprobs=tuple(entry[token].logprob for token, entry in zip(chosen, output.logprobs, strict=True)),
            text=output.text,
            finish_reason=FinishReason(output.finish_reason),
            policy_version_min=min(versions),
            policy_version_max=max(versions),
        )

    async def score(self, token_ids: tuple[int, ...]) -> list[float]:
        """See :meth:`rollout.sampling.engine.Engine.score`; at temperature 1, ahead of all requests that wait."""
        from vllm import SamplingParams

        # vLLM computes prompts only on the way to a response, so one token is sampled and thrown away.
        params = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        entries = (await self._final_output(token_ids, params, AHEAD)).prompt_logprobs
        return [0.0] + [entry[token].logprob for token, entry in zip(token_ids[1:], entries[1:], strict=True)]

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
        outcome = LoadOutcome(
            refused=tuple(sorted({problem for result in results for problem in result["refused"]})),
            not_loaded=tuple(sorted({name for result in results for name in result["not_loaded"]})),
            check_s=max(result["check_s"] for result in results),
        )
        is_loaded = not outcome.refused and not outcome.not_loaded
        if is_loaded:
            await self.set_version(version)
        if is_loaded or all(result["refused"] for result in results):
            await self.resume()  # else it stays paused: nobody knows what it would sample from
        return outcome

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
        """One stage of vLLM's own weight-transfer protocol: ``init``, ``start``, ``update`` or ``finish``."""
        from vllm.distributed.weight_transfer import base

        if stage == "init":
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
