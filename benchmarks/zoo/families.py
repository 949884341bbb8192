"""Tiny models with made-up weights, one or more of each family. No weights are downloaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VOCAB = 128
ALPHABET = "abcdefghijklmnopqrstuvwxyz 0123456789"

BASE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "vocab_size": VOCAB,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
TIED: dict[str, Any] = {"tie_word_embeddings": True}
MOE: dict[str, Any] = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
HYBRID: dict[str, Any] = {
    "num_hidden_layers": 4,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
}
ROUTED: dict[str, Any] = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
LATENT: dict[str, Any] = {
    "kv_lora_rank": 512,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 16,
    "v_head_dim": 32,
}
SIGLIP: dict[str, Any] = {
    "num_hidden_layers": 1,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
VISION: dict[str, Any] = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 64}


@dataclass(frozen=True, kw_only=True)
class Member:
    """One model of the zoo.

    Attributes:
        name: of the line in the table.
        kind: ``model_type`` of its configuration.
        shape: on top of :data:`BASE`, of the text part.
        without: keys of :data:`BASE` that its configuration does not have.
        vision: of the vision part; a model that has one is saved whole, as checkpoints of it are published.
    """

    name: str
    kind: str
    shape: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    vision: dict[str, Any] | None = None


def _pair(name: str, kind: str, **shape: Any) -> list[Member]:
    return [
        Member(name=name, kind=kind, shape=shape),
        Member(name=f"{name}, tied", kind=kind, shape={**shape, "tie_word_embeddings": True}),
    ]


ZOO: tuple[Member, ...] = (
    *_pair("Llama", "llama"),
    Member(name="Llama, biases", kind="llama", shape={"attention_bias": True, "mlp_bias": True}),
    *_pair("Qwen2", "qwen2"),
    *_pair("Qwen3", "qwen3"),
    Member(name="Qwen3, biases", kind="qwen3", shape={"attention_bias": True}),
    *_pair("Qwen3-MoE", "qwen3_moe", **MOE, decoder_sparse_step=1),
    Member(name="Qwen3-MoE, biases", kind="qwen3_moe", shape={**MOE, "attention_bias": True}),
    Member(name="Qwen2-MoE", kind="qwen2_moe", shape={**MOE, "shared_expert_intermediate_size": 32}),
    Member(name="Qwen3-Next", kind="qwen3_next", shape={**MOE, **HYBRID, "shared_expert_intermediate_size": 32}),
    Member(name="Qwen3.5, text", kind="qwen3_5_text", shape=HYBRID),
    Member(
        name="Qwen3.5-MoE, text",
        kind="qwen3_5_moe_text",
        shape={**MOE, **HYBRID, "shared_expert_intermediate_size": 32},
    ),
    Member(name="Qwen3.5, images", kind="qwen3_5", shape=HYBRID, vision=VISION),
    Member(name="Gemma 3, images", kind="gemma3", shape={"query_pre_attn_scalar": 32}, vision=SIGLIP),
    Member(name="Gemma, tied", kind="gemma", shape=TIED),
    Member(name="Gemma 2, tied", kind="gemma2", shape={**TIED, "query_pre_attn_scalar": 32}),
    Member(name="Gemma 2", kind="gemma2", shape={"query_pre_attn_scalar": 32}),
    Member(name="Gemma 3, text, tied", kind="gemma3_text", shape={**TIED, "query_pre_attn_scalar": 32}),
    Member(name="GLM-4-MoE", kind="glm4_moe", shape=ROUTED),
    Member(
        name="DeepSeek-V3",
        kind="deepseek_v3",
        shape={**ROUTED, **LATENT, "topk_method": "noaux_tc"},
        without=("head_dim", "num_key_value_heads"),
    ),
    Member(name="gpt-oss", kind="gpt_oss", shape={"num_local_experts": 4, "num_experts_per_tok": 2}),
    Member(name="Mixtral", kind="mixtral", shape={"num_local_experts": 4, "num_experts_per_tok": 2}),
    *_pair("Mistral", "mistral"),
    Member(name="Phi", kind="phi", without=("head_dim",)),
    Member(name="Phi-3", kind="phi3", without=("head_dim",)),
    Member(name="GPT-NeoX", kind="gpt_neox", without=("head_dim", "num_key_value_heads")),
    Member(name="GPT-2", kind="gpt2"),
    Member(name="OLMo 2", kind="olmo2"),
    Member(name="SmolLM3", kind="smollm3"),
    Member(name="Granite", kind="granite", shape={"logits_scaling": 2.0, "embedding_multiplier": 1.5}),
    Member(name="StarCoder 2", kind="starcoder2", shape={"use_bias": True}),
)


def make(member: Member, folder: Path, seed: int = 0) -> Any:
    """Write the model as its checkpoints are published; returns what was saved.

    Weights are drawn anew so that biases, norms and a router's bias are no constants.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    from cluster.warmstart.warmstart import build_tokenizer

    text = {key: value for key, value in (BASE | member.shape).items() if key not in member.without}
    torch.manual_seed(seed)
    if member.vision is None:
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(member.kind, **text), dtype=torch.float32)
    else:
        tied = text.pop("tie_word_embeddings")
        parts: dict[str, Any] = {"text_config": text, "vision_config": member.vision}
        config = AutoConfig.for_model(member.kind, **parts, tie_word_embeddings=tied)
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    change(model, seed, scale=0.05)
    model.save_pretrained(folder)
    build_tokenizer(ALPHABET, max_position=256).save_pretrained(folder)
    return model


def change(model: Any, seed: int, scale: float = 0.05) -> None:
    """Add noise to every weight, and to every number that is saved beside them."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    saved = set(model.state_dict())
    buffers = [buffer for name, buffer in model.named_buffers() if name in saved and buffer.is_floating_point()]
    with torch.no_grad():
        for tensor in [*model.parameters(), *buffers]:
            tensor.add_(torch.randn(tensor.shape, generator=generator) * scale)


def file_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in a model's files."""
    from safetensors import safe_open

    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return found
