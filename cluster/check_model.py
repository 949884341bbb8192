"""Whether the model of a run can be loaded and served: its configuration, tokenizer, shape and weights.

Loads the model's configuration and tokenizer only, never its weights.
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cluster.config import RunConfig
from rollout.component import UserError, nearest

MIN_CPU_HEAD_DIM = 32
"""Narrowest attention head that vLLM serves on a CPU."""


def check_model(config: RunConfig) -> Any:
    """Check the policy's model folder or hub id; returns its tokenizer.

    Raises:
        UserError: no such model, not a causal language model, or its shape does not suit the run.
    """
    from rollout.prompts import load_tokenizer

    model = load_model_config(config.model.path, "model.path", config.model.trust_remote_code)
    check_causal_lm(model, config.model.path, config.model.trust_remote_code)
    text = model.get_text_config()
    if config.cluster.gpus_per_rollout_worker == 0:
        head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        if head_dim < MIN_CPU_HEAD_DIM:
            raise UserError(
                f"model.path: {config.model.path!r} has attention heads of {head_dim} dimensions; vLLM on a CPU needs "
                f"at least {MIN_CPU_HEAD_DIM}"
            )
    longest = config.rollout.longest_tokens
    positions = getattr(text, "max_position_embeddings", None)
    if positions is not None and positions < longest:
        if config.rollout.max_conversation_tokens is not None:
            raise UserError(
                f"rollout.max_conversation_tokens: {longest} tokens, but the model {config.model.path!r} has "
                f"{positions} positions"
            )
        raise UserError(
            f"rollout.max_prompt_tokens: with rollout.sampling.max_response_tokens it makes {longest} tokens, but the "
            f"model {config.model.path!r} has {positions} positions; lower one of them"
        )
    tokenizer = load_tokenizer(config.model.path, config.model.trust_remote_code)
    if len(tokenizer) > text.vocab_size:
        raise UserError(
            f"model.path: the tokenizer of {config.model.path!r} has {len(tokenizer)} tokens, its model only "
            f"{text.vocab_size}; they do not belong together"
        )
    return tokenizer


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
        raise UserError(
            f"model.critic_path: {config.model.critic_path!r} has a vocabulary of {critic.vocab_size} tokens, the "
            f"policy one of {policy.vocab_size}; the critic reads the policy's tokens, so they must be the same"
        )


def load_model_config(path: str, key: str, trust_remote_code: bool = False) -> Any:
    """The ``transformers`` configuration of a folder or hub id.

    Raises:
        UserError: neither a folder in Hugging Face format nor a model that the hub gives.
    """
    folder = Path(path).expanduser()
    online = True
    if folder.is_dir():
        _check_folder(folder, key)
    elif folder.exists():
        raise UserError(f"{key}: {path!r} is a file; give the folder that holds config.json")
    elif not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", path) or path.startswith("."):
        raise UserError(f"{key}: no such folder: {path!r}{_siblings(folder)}")
    else:
        online = hub_is_reachable()
    if not online:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when transformers is imported: no minutes of retries, here or later
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(str(folder) if folder.is_dir() else path, trust_remote_code=trust_remote_code)
    except Exception as error:  # the hub client raises errors of many libraries
        reason = " ".join(str(error).split())[:300]
        if folder.is_dir():
            raise UserError(f"{key}: {path}/config.json is not a model configuration: {reason}") from error
        why = f"gives ({reason})" if online else "has left in the cache (the hub cannot be reached)"
        raise UserError(
            f"{key}: {path!r} is neither a folder here{_siblings(folder)} nor a model that the Hugging Face hub {why}. "
            f"A starting model for a built-in task is made by 'dvpo warmstart --task NAME --output {path}'"
        ) from error


def hub_is_reachable(timeout_s: float = 5.0) -> bool:
    """Whether the Hugging Face hub answers, or a proxy might reach it; False if HF_HUB_OFFLINE asks to keep off it."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    hub = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        with socket.create_connection((hub.hostname or "", hub.port or 443), timeout=timeout_s):
            return True
    except OSError:
        return False


def check_causal_lm(model: Any, path: str, trust_remote_code: bool) -> None:
    """Refuse models that do not predict the next token.

    Raises:
        UserError: the model's type has no causal language model.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    brings_code = trust_remote_code and "AutoModelForCausalLM" in getattr(model, "auto_map", {})
    if model.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not brings_code:
        raise UserError(
            f"model.path: {path!r} is of type {model.model_type!r}, which is not a causal language model that "
            "transformers knows"
        )


def _check_folder(folder: Path, key: str) -> None:
    """A model folder must have a configuration and weights."""
    if not (folder / "config.json").is_file():
        inside = folder / "policy"
        hint = f"; did you mean {str(inside)!r}?" if (inside / "config.json").is_file() else ""
        raise UserError(f"{key}: folder {str(folder)!r} has no config.json, so it is not in Hugging Face format{hint}")
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        raise UserError(f"{key}: folder {str(folder)!r} has no weights (*.safetensors)")


def _siblings(folder: Path) -> str:
    """A hint at folders beside the one that is missing."""
    if not folder.parent.is_dir() or folder.parent == Path("."):
        return ""
    names = [str(entry) for entry in folder.parent.iterdir() if entry.is_dir()][:50]
    return f"; {nearest(str(folder), names)}" if names else ""
