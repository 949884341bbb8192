"""What every vLLM engine here is set up with, is asked for, and answers, however it is driven.

vLLM is imported inside functions: naming this module costs nothing.
"""

from __future__ import annotations

import secrets
from typing import Any, Protocol

from rollout.config import RolloutConfig, SamplingConfig
from rollout.sampling.engine import Completion, LoadOutcome
from rollout.sampling.engine_args import merged
from rollout.sampling.evaluation import EvaluationSampling
from rollout.trajectory import FinishReason

BLOCK_TOKENS_ON_CPU = 32
"""Tokens of one block of the KV cache."""

MAX_BATCHED_TOKENS_ON_CPU = 8192
"""Tokens one engine step computes at most; a longer context raises it."""

AHEAD = -1
"""Priority of a request that is scheduled before all others."""


def engine_environment(on_gpu: bool, num_threads: int = 1) -> dict[str, str]:
    """Environment variables that must be set before vLLM is imported in a rollout worker's process.

    On CPU an engine has ``num_threads`` and is not pinned: two pinned engines would share the first core. The worker
    runs inside the engine's one child process instead of a second one. oneDNN keeps a compiled kernel for each of the
    last so many shapes of a batch, by default 1024, which is a process that grows for hours.
    """
    common = {
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DISABLE_REQUEST_ID_RANDOMIZATION": "1",  # one caller, who numbers its requests
        "TOKENIZERS_PARALLELISM": "false",
    }
    if on_gpu:
        return {**common, "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    return {
        **common,
        "OMP_NUM_THREADS": str(num_threads),
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


def engine_options(
    model_path: str,
    config: RolloutConfig,
    on_gpu: bool,
    trust_remote_code: bool = False,
    transfer_backend: str | None = None,
) -> dict[str, Any]:
    """Keyword arguments of vLLM's engine.

    Raises:
        UserError: one of ``config.engine_args`` must not be set there.

    Args:
        model_path: folder or hub id of a causal language model.
        config: see :class:`RolloutConfig`.
        on_gpu: whether the engine has GPUs.
        trust_remote_code: passed on to vLLM.
        transfer_backend: vLLM weight-transfer back end to prepare ("nccl"), or None for weights through files.
    """
    options: dict[str, Any] = {
        "model": model_path,
        "dtype": config.dtype,
        "max_model_len": config.longest_tokens,
        "max_num_seqs": config.max_concurrent_requests + 1,  # one for `score`, which is not to wait for a response
        "scheduling_policy": "priority",
        "enforce_eager": config.enforce_eager,
        "tensor_parallel_size": config.tensor_parallel_size,
        "trust_remote_code": trust_remote_code,
        "language_model_only": True,  # a policy reads and writes text; of others this changes nothing
        "logprobs_mode": "processed_logprobs",
        "worker_extension_cls": "rollout.sampling.vllm_weights.WeightLoaderExtension",
        "disable_log_stats": False,
        # Of responses without a seed of their own: engines must not draw the same numbers, nor one after a restart.
        "seed": secrets.randbits(31),
    }
    if config.tensor_parallel_size > 1:
        # In a Ray actor vLLM would otherwise ask Ray for further actors, whose GPUs this one has already.
        options["distributed_executor_backend"] = "mp"
    if on_gpu:
        options["gpu_memory_utilization"] = config.gpu_memory_utilization
    else:
        # A partly computed prompt samples a token that is thrown away, and vLLM then rewinds the request's random
        # stream, which generators on a CPU cannot do: the engine would die. So prompts are computed whole.
        options |= {
            "kv_cache_memory_bytes": config.kv_cache_mib << 20,
            "block_size": BLOCK_TOKENS_ON_CPU,
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(MAX_BATCHED_TOKENS_ON_CPU, options["max_model_len"]),
        }
    if transfer_backend is not None:
        options["weight_transfer_config"] = {"backend": transfer_backend}
    return merged(options, config.engine_args, on_gpu)


def response_params(sampling: SamplingConfig, seed: int | None) -> Any:
    """vLLM's parameters of one response whose log-probabilities are those after temperature."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    truncation: dict[str, Any] = {}
    if isinstance(sampling, EvaluationSampling):
        truncation = {"top_p": sampling.top_p, "top_k": sampling.top_k, "min_p": sampling.min_p}
    # logprobs=0 is the sampled token alone. Text is only made where stop strings have to be looked for.
    return SamplingParams(
        **truncation,
        temperature=sampling.temperature,
        max_tokens=sampling.max_response_tokens,
        stop=list(sampling.stop),
        seed=seed,
        logprobs=0,
        detokenize=bool(sampling.stop),
        output_kind=RequestOutputKind.FINAL_ONLY,
        skip_clone=True,  # each request gets its own already
    )


def completion_of(output: Any) -> Completion:
    """What a response asked for by :func:`response_params` came to."""
    output = output.outputs[0]
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


def score_params() -> Any:
    """vLLM's parameters of a text whose log-probabilities at temperature 1 are wanted."""
    from vllm import SamplingParams

    # vLLM computes prompts only on the way to a response, so one token is sampled and thrown away.
    return SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)


def scores_of(token_ids: tuple[int, ...], output: Any) -> list[float]:
    """Log-probability of each token given those before it, 0.0 for the first, as :func:`score_params` asked for."""
    entries = output.prompt_logprobs
    return [0.0] + [entry[token].logprob for token, entry in zip(token_ids[1:], entries[1:], strict=True)]


def load_outcome(results: list[dict[str, Any]]) -> LoadOutcome:
    """What :meth:`rollout.sampling.vllm_weights.WeightLoaderExtension.load_weights_from_file` said on each GPU."""
    return LoadOutcome(
        refused=tuple(sorted({problem for result in results for problem in result["refused"]})),
        not_loaded=tuple(sorted({name for result in results for name in result["not_loaded"]})),
        check_s=max(result["check_s"] for result in results),
    )


class PausedEngine(Protocol):
    """What an engine that was paused for loading does afterwards."""

    async def set_version(self, version: int) -> None:
        """Name the current weights."""

    async def resume(self) -> None:
        """Sample again."""


async def settle_load(engine: PausedEngine, results: list[dict[str, Any]], version: int) -> LoadOutcome:
    """What comes after weights were loaded into a paused engine: its new version, and that it samples again.

    An engine of which only some workers have loaded stays paused: nobody knows what it would sample from.
    """
    outcome = load_outcome(results)
    is_loaded = not outcome.refused and not outcome.not_loaded
    if is_loaded:
        await engine.set_version(version)
    if is_loaded or all(result["refused"] for result in results):
        await engine.resume()
    return outcome
