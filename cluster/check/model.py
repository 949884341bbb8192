"""Whether the model of a run can be loaded and served: its configuration, tokenizer, shape and weights.

Loads the model's configuration, tokenizer and side files only, never its weights.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from cluster.check.families import require_reachable
from cluster.config.model_folder import load_model_config, max_positions
from cluster.config.paths import absolute_model_path
from cluster.config.run_config import RunConfig
from learner.engine.deepspeed_options import deepspeed_settings
from rollout.component import nearest
from rollout.component.mistakes import Conflict, EngineArgument, ModelFiles, ModelMismatch, ModelUnsupported
from rollout.data.prompts import load_tokenizer
from rollout.rewards.errors import one_line
from rollout.sampling.engine_args import check_values
from rollout.sampling.vllm_options import engine_options

WHOLE_WEIGHTS_LR = 2e-6
"""Up to this a learning rate is one for whole weights; the default is 1e-6."""
MIN_CPU_HEAD_DIM = 32
"""Narrowest attention head that vLLM serves on a CPU."""


def check_model(config: RunConfig) -> Any:
    """Check the policy's model folder or hub id; returns its tokenizer.

    Raises:
        UserError: no such model, not a causal language model, or its shape does not suit the run.
    """
    model = load_model_config(config.model.path, "model.path", config.model.trust_remote_code)
    _require_causal_lm(model, config)
    on_gpu = config.cluster.gpus_per_rollout_worker > 0
    require_reachable(model, config.model.path, config.rollout.dtype, on_gpu)
    text = model.get_text_config()
    if not on_gpu:
        # Some kinds of models state the width of a head, for others it follows.
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        if head_dim < MIN_CPU_HEAD_DIM:
            raise ModelUnsupported(
                f"model.path: {config.model.path!r} has attention heads of {head_dim} dimensions; vLLM on a CPU needs "
                f"at least {MIN_CPU_HEAD_DIM}"
            )
    _check_shards(config, text)
    longest, positions = config.rollout.longest_tokens, max_positions(model)
    if positions is not None and positions < longest:
        if config.rollout.max_conversation_tokens is not None:
            raise ModelMismatch(
                f"rollout.max_conversation_tokens: {longest} tokens, but the model {config.model.path!r} has "
                f"{positions} positions"
            )
        raise ModelMismatch(
            f"rollout.max_prompt_tokens: with rollout.sampling.max_response_tokens it makes {longest} tokens, but the "
            f"model {config.model.path!r} has {positions} positions; lower one of them"
        )
    _check_files(config, model)
    tokenizer = load_tokenizer(config.model.path, config.model.trust_remote_code)
    if len(tokenizer) > text.vocab_size:
        raise ModelMismatch(
            f"model.path: the tokenizer of {config.model.path!r} has {len(tokenizer)} tokens, its model only "
            f"{text.vocab_size}; they do not belong together"
        )
    return tokenizer


def adapter_warnings(config: RunConfig) -> list[str]:
    """What will work with adapters, but probably not as wished."""
    warnings: list[str] = []
    if config.model.lora is None:
        return warnings
    if config.learner.policy_lr <= WHOLE_WEIGHTS_LR:
        warnings.append(
            f"learner.policy_lr: {config.learner.policy_lr:g} is for whole weights; adapters (model.lora) usually want "
            "1e-5 to 2e-4"
        )
    if config.model.dtype == "bfloat16" and config.rollout.dtype == "float32":
        warnings.append(
            "model.lora: the learner computes in bfloat16, where a part of what adapters add is lost, and engines with "
            "merged weights in float32, where it is not: policy/sampler_kl grows with training, and so does the gap "
            "that rollout.canary_tolerance limits; give both the same, rollout.dtype or model.dtype (docs/gpus.md)"
        )
    return warnings


def check_engine_args(config: RunConfig) -> None:
    """Have vLLM look at ``rollout.engine_args``, if there are any; that loads vLLM.

    Raises:
        UserError: it knows no such argument, or does not accept its value.
    """
    arguments, on_gpu = config.rollout.engine_args, config.cluster.gpus_per_rollout_worker > 0
    if arguments:
        path = absolute_model_path(config.model.path)
        options = engine_options(path, config.rollout, on_gpu, config.model.trust_remote_code)
        check_values(options, arguments, on_gpu)


def check_deepspeed(config: RunConfig) -> None:
    """Have DeepSpeed's own class look at ``learner.deepspeed``, if there is anything in it; that loads DeepSpeed.

    Raises:
        UserError: it knows no such key of ZeRO, or does not accept its value.
    """
    added = config.learner.deepspeed.get("zero_optimization")
    if not added:
        return
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
    from pydantic import ValidationError

    where, settings = "learner.deepspeed.zero_optimization", deepspeed_settings(config.learner, False, on_gpu=False)
    if not isinstance(added, dict):
        raise EngineArgument(f"{where}: must be a mapping of DeepSpeed's keys (got {added!r})")
    try:
        DeepSpeedZeroConfig(**settings["zero_optimization"])
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        known = {name for n, f in DeepSpeedZeroConfig.model_fields.items() for name in (n, f.alias) if name}
        hint = f"; {nearest(key, sorted(known))}" if first["type"] == "extra_forbidden" else ""
        raise EngineArgument(f"{where}.{key}: DeepSpeed does not accept it: {first['msg']}{hint}") from error


def _check_shards(config: RunConfig, text: Any) -> None:
    """The GPUs of an engine share its attention heads evenly.

    Args:
        text: the configuration of the model's text part.

    Raises:
        UserError: they cannot.
    """
    shards, heads = config.rollout.tensor_parallel_size, text.num_attention_heads
    if heads % shards:
        possible = [n for n in range(1, heads + 1) if heads % n == 0]
        raise Conflict(
            f"rollout.tensor_parallel_size: {shards} GPUs cannot share the {heads} attention heads of "
            f"{config.model.path!r} evenly; possible are {', '.join(map(str, possible))}"
        )


def _check_files(config: RunConfig, model: Any) -> None:
    """Make the model without its weights, read what a run carries beside them, and write its configuration.

    Args:
        model: the configuration of ``model.path``.

    Raises:
        UserError: one of these would fail in the run, at the start or with the first checkpoint; or adapters are not
            for this model.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    from learner.models.lora.targets import require_peft, target_layers

    path = config.model.path
    folder = Path(path)
    unreadable = [file.name for file in folder.glob("*") if file.is_file() and not os.access(file, os.R_OK)]
    if unreadable:
        raise ModelFiles(f"model.path: {path}/{unreadable[0]} cannot be read, so no checkpoint could carry it")
    try:
        GenerationConfig.from_pretrained(path, local_files_only=True)
    except OSError as error:
        if (folder / "generation_config.json").exists():
            raise ModelFiles(f"model.path: {path}/generation_config.json is not valid JSON") from error
    except Exception as error:  # what it does not accept, as errors of many kinds
        raise ModelFiles(f"model.path: {path}/generation_config.json: {one_line(error)}") from error
    try:
        with torch.device("meta"):  # shapes alone
            made = AutoModelForCausalLM.from_config(model, trust_remote_code=config.model.trust_remote_code)
        with tempfile.TemporaryDirectory() as scratch:
            made.config.save_pretrained(scratch)
    except Exception as error:  # of transformers or of the model's own code
        raise ModelFiles(f"model.path: {path}/config.json cannot be used or saved: {one_line(error)}") from error
    if config.model.lora is not None:
        require_peft()
        target_layers(made, config.model.lora)


def check_critic_body(config: RunConfig) -> None:
    """Check the model that the critic starts from, where it is another one.

    Raises:
        UserError: no such model, or it does not read the policy's tokens.
    """
    if config.model.critic_path in (None, config.model.path):
        return
    trust = config.model.trust_remote_code
    critic = load_model_config(config.model.critic_body_path, "model.critic_path", trust).get_text_config()
    policy = load_model_config(config.model.path, "model.path", trust).get_text_config()
    if critic.vocab_size < policy.vocab_size:
        raise ModelMismatch(
            f"model.critic_path: {config.model.critic_path!r} has a vocabulary of {critic.vocab_size} tokens, the "
            f"policy one of {policy.vocab_size}; the critic reads the policy's tokens, so they must be the same"
        )


def _require_causal_lm(model: Any, config: RunConfig) -> None:
    """Refuse models that do not predict the next token.

    Args:
        model: the configuration of ``model.path``.

    Raises:
        UserError: the model's type has no causal language model.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    # Only a model with code of its own has an auto_map, which names the class for each use.
    brings_code = config.model.trust_remote_code and "AutoModelForCausalLM" in getattr(model, "auto_map", {})
    if model.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not brings_code:
        raise ModelUnsupported(
            f"model.path: {config.model.path!r} is of type {model.model_type!r}, which is not a causal language model "
            "that transformers knows"
        )
