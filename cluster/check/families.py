"""Kinds of models whose weights are known not to reach an engine whole, each refused with the reason.

What is here was found by sending changed weights to a real engine (``python -m benchmarks.zoo``, docs/gpus.md).
"""

from __future__ import annotations

from typing import Any

from rollout.component.mistakes import ModelUnsupported

_NO_RELOAD = "vLLM's loader writes its experts and attention sinks past the reload, so a sync would leave the old ones"
_NO_LATENT = "vLLM keeps tensors of its latent attention (MLA) that a reload does not fill"
_WITH_IMAGES = "it has no class for text alone, and would be trained with its parts for images; give a text-only model"
_BIAS = "vLLM leaves out the bias of the attention's output (attention_bias: true)"
_HEAD = "vLLM takes its LM head to be the embedding, and here it is not (tie_word_embeddings: false)"
_LINEAR_ON_CPU = "its layers of linear attention run in bfloat16 only on a CPU; set rollout.dtype: bfloat16"


def require_reachable(model: Any, path: str, dtype: str, on_gpu: bool) -> None:
    """Refuse a model whose weights would not reach the engine, or that the engine computes otherwise.

    Args:
        model: the configuration of ``model.path``.
        path: where that is, for the message.
        dtype: ``rollout.dtype``.
        on_gpu: whether engines have GPUs.

    Raises:
        ModelUnsupported: it is of such a kind.
    """
    reason = _reason(model, dtype, on_gpu)
    if reason:
        raise ModelUnsupported(
            f"model.path: {path!r} is of type {model.model_type!r}, which cannot be trained: {reason}"
        )


def _reason(model: Any, dtype: str, on_gpu: bool) -> str:
    """Why not; empty if nothing is known against it."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    text = model.get_text_config()
    kind, causal = model.model_type, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model.model_type, "")
    if kind == "gpt_oss":
        return _NO_RELOAD
    if getattr(text, "kv_lora_rank", None):
        return _NO_LATENT
    if "ForConditionalGeneration" in causal:
        return _WITH_IMAGES
    if kind in ("qwen3", "qwen3_moe") and getattr(text, "attention_bias", False):
        return _BIAS
    if kind == "gemma2" and not model.tie_word_embeddings:
        return _HEAD
    if not on_gpu and dtype == "float32" and "linear_attention" in (getattr(text, "layer_types", None) or ()):
        return _LINEAR_ON_CPU
    return ""
