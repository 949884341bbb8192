"""Which of vLLM's own engine arguments a configuration may pass on, and why not the others.

Two kinds are refused: what an option of a run or the run itself sets, and what makes the sampler's log-probabilities
those of another distribution than the learner's weights give. The rest goes to vLLM as it is; whatever it does to the
numbers is in the canary of each weight sync and in the gap between sampler and learner of each step.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rollout.component import nearest
from rollout.component.mistakes import EngineArgument

WHERE = "rollout.engine_args"

_ONE_ENGINE = "an engine's GPUs are those of rollout.tensor_parallel_size, in one process group of one rollout worker"
_MODEL = "the model and its files are model.path, which the learner reads, too"
_REQUESTS = "it is rollout.max_concurrent_requests, and one for the canary; requests beyond it wait in the pool"
_SAMPLING = "responses end and are drawn as rollout.sampling says"


def _each(names: str, why: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), why)


OWNED = {
    **_each(
        "model model_weights tokenizer tokenizer_mode tokenizer_revision hf_config_path hf_token revision "
        "code_revision config_format load_format served_model_name runner convert skip_tokenizer_init "
        "model_loader_extra_config download_dir",
        _MODEL,
    ),
    **_each(
        "pipeline_parallel_size nnodes node_rank master_addr master_port device_ids distributed_executor_backend "
        "data_parallel_size data_parallel_rank data_parallel_start_rank data_parallel_size_local data_parallel_address "
        "data_parallel_rpc_port data_parallel_backend prefill_context_parallel_size decode_context_parallel_size",
        _ONE_ENGINE,
    ),
    **_each("max_num_seqs max_num_active_seqs max_num_queued_reqs max_num_queued_tokens", _REQUESTS),
    **_each("generation_config override_generation_config", _SAMPLING),
    "dtype": "it is rollout.dtype",
    "enforce_eager": "it is rollout.enforce_eager",
    "gpu_memory_utilization": "it is rollout.gpu_memory_utilization",
    "kv_cache_memory_bytes": "it is rollout.kv_cache_mib on a CPU, and follows rollout.gpu_memory_utilization on a GPU",
    "max_model_len": "it follows from rollout.max_prompt_tokens, max_conversation_tokens and max_response_tokens",
    "tensor_parallel_size": "it is rollout.tensor_parallel_size",
    "trust_remote_code": "it is model.trust_remote_code",
    "seed": "every start of an engine has one of its own, and each response too with rollout.reproducible",
    "logprobs_mode": "log-probabilities have to be those of the distribution that was sampled from",
    "scheduling_policy": "the canary goes before all requests, by priority",
    "language_model_only": "a policy reads and writes text, so the parts of its model that see or hear are left out",
    "disable_log_stats": "the run reads the engine's counters",
    "weight_transfer_config": "it follows from rollout.weight_sync",
    "worker_cls": "weights are loaded by the run's own extension of vLLM's worker",
    "worker_extension_cls": "weights are loaded by the run's own extension of vLLM's worker",
    "enable_lora": "engines get whole weights: the adapters of model.lora are merged on the way",
}
"""Sets itself, or has an option for."""

_DRAFTS = "nobody has shown here that the log-probabilities of accepted draft tokens are exact"
_ROUNDED = "the learner's gradient is of unrounded weights, so every importance ratio would be wrong"
_ROUNDED_CACHE = "keys and values would be rounded, which the learner's are not"
_OTHER_MODEL = "the learner would train another model than the engine serves; change the model's own config.json"
INEXACT = {
    **_each("quantization quantization_config allow_deprecated_quantization", _ROUNDED),
    **_each("speculative_config spec_method spec_model spec_tokens", _DRAFTS),
    **_each("hf_overrides model_class_overrides disable_sliding_window", _OTHER_MODEL),
    **_each("kv_cache_dtype kv_cache_dtype_skip_layers enable_mamba_cache_stochastic_rounding", _ROUNDED_CACHE),
    "logits_processors": "the learner does not know what they do to the distribution",
    "watermark_config": "a watermark changes the distribution, which the learner does not know",
    "kv_sharing_fast_prefill": "log-probabilities of prompts, by which a weight sync is checked, are not computed then",
    "diffusion_config": "the learner's models predict the next token",
}
"""Breaks exact log-probabilities, or may."""

_ON_CPU = {
    "enable_chunked_prefill": "prompts are computed whole on a CPU: vLLM cannot rewind a random stream there",
}


def refusals(arguments: Mapping[str, Any], on_gpu: bool) -> Iterator[tuple[str, str]]:
    """Name and reason of each argument that must not be passed on."""
    for name in arguments:
        if name in OWNED:
            yield name, f"not to be set here: {OWNED[name]}"
        elif name in INEXACT:
            yield name, f"would break exact log-probabilities: {INEXACT[name]}"
        elif not on_gpu and name in _ON_CPU:
            yield name, f"not to be set here: {_ON_CPU[name]}"


def merged(options: Mapping[str, Any], arguments: Mapping[str, Any], on_gpu: bool) -> dict[str, Any]:
    """The engine's options with the configured arguments.

    Raises:
        UserError: one of them must not be passed on.
    """
    for name, why in refusals(arguments, on_gpu):
        raise EngineArgument(f"{WHERE}.{name}: {why}")
    return {**options, **arguments}


def check_values(options: Mapping[str, Any], arguments: Mapping[str, Any], on_gpu: bool) -> None:
    """Have vLLM look at the arguments: its own class is made of all options, and on a CPU the engine's configuration.

    Loads vLLM, and on a CPU the model's configuration; nothing is started.

    Raises:
        UserError: vLLM knows no such argument, or does not accept a value.
    """
    with _quiet_vllm():
        import vllm
        from vllm.engine.arg_utils import AsyncEngineArgs

    fields = {field.name: field.type for field in dataclasses.fields(AsyncEngineArgs)}
    for name, value in arguments.items():
        if name not in fields:
            hint = nearest(name, [known for known in fields if known not in OWNED and known not in INEXACT])
            close = hint.partition(" valid: ")[0] if hint.startswith("did you mean") else "its documentation has a list"
            raise EngineArgument(f"{WHERE}.{name}: vLLM {vllm.__version__} has no such engine argument; {close}")
        _check_type(name, value, fields[name])
    try:
        made = AsyncEngineArgs(**options)
        if not on_gpu:  # of a GPU's this machine may know nothing
            made.create_engine_config()
    except Exception as error:  # whatever vLLM makes of it
        names = ", ".join(arguments)
        raise EngineArgument(f"{WHERE}: vLLM does not accept these ({names}): {_one_line(error)}") from error


def _check_type(name: str, value: Any, annotation: Any) -> None:
    from pydantic import TypeAdapter, ValidationError

    if _has_own_reader(annotation):
        return
    try:
        TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise EngineArgument(f"{WHERE}.{name}: {first['msg']} (got {value!r})") from error


def _has_own_reader(annotation: Any) -> bool:
    """Whether vLLM reads such values in a way of its own: names of enumerations, and configurations within it."""
    parts = (annotation, *typing.get_args(annotation))
    return any(
        isinstance(part, str)
        or (isinstance(part, type) and (issubclass(part, enum.Enum) or dataclasses.is_dataclass(part)))
        for part in parts
    )


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    _, found, rest = text.partition("Value error, ")
    return (rest if found else text).partition(" [type=")[0][:500]


@contextmanager
def _quiet_vllm() -> Iterator[None]:
    """vLLM sets its log up when it is first imported."""
    before = os.environ.get("VLLM_LOGGING_LEVEL")
    os.environ["VLLM_LOGGING_LEVEL"] = before or "ERROR"
    try:
        yield
    finally:
        if before is None:
            del os.environ["VLLM_LOGGING_LEVEL"]
