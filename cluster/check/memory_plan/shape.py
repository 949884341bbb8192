"""The numbers of a transformer that its memory and speed follow from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster.config.model_folder import load_model_config
from cluster.config.run_config import RunConfig
from learner.config import LoraOptions
from rollout.component.mistakes import ModelFiles


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A transformer.

    Attributes:
        num_weights: tied ones once.
        num_layers, hidden, inner, vocab: layers, width, width of the feed-forward part, words.
        query, key: widths of all query heads and of all key heads of a layer.
        adapters: numbers of the adapters that are trained in place of the weights; 0 without.
        adapter_ranks: their widths together.
    """

    num_weights: int
    num_layers: int
    hidden: int
    inner: int
    vocab: int
    query: int
    key: int
    adapters: int = 0
    adapter_ranks: int = 0

    @property
    def cache_numbers(self) -> int:
        """Numbers of keys and values that a token takes in a cache."""
        return 2 * self.num_layers * self.key


def policy_shape(config: RunConfig) -> ModelShape:
    """Of ``model.path``.

    Raises:
        UserError: there is no such config.json, it is not that of a causal language model, or adapters do not fit it.
    """
    return _shape(config, config.model.path, "model.path", "AutoModelForCausalLM", config.model.lora)


def critic_shape(config: RunConfig) -> ModelShape:
    """Of the critic's transformer body.

    Raises:
        UserError: there is no such config.json, or it cannot be used.
    """
    key = "model.path" if config.model.critic_path is None else "model.critic_path"
    lora = config.model.lora if config.model.critic_adapts else None
    return _shape(config, config.model.critic_body_path, key, "AutoModel", lora)


def _shape(config: RunConfig, path: str, key: str, kind: str, lora: LoraOptions | None) -> ModelShape:
    import torch
    import transformers

    from learner.models.lora.targets import adapter_numbers

    trust = config.model.trust_remote_code
    found = load_model_config(path, key, trust, with_weights=False)
    try:
        with torch.device("meta"):  # shapes alone
            made = getattr(transformers, kind).from_config(found, trust_remote_code=trust)
    except Exception as error:  # of transformers or of the model's own code
        raise ModelFiles(f"{key}: {path}/config.json cannot be used: {' '.join(str(error).split())[:300]}") from error
    text: Any = found.get_text_config()
    heads = text.num_attention_heads
    numbers, ranks = (0, 0) if lora is None else adapter_numbers(made, lora)
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return ModelShape(
        num_weights=sum(parameter.numel() for parameter in made.parameters()),
        num_layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        inner=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,  # GPT-2's way
        vocab=text.vocab_size,
        query=heads * width,
        key=(getattr(text, "num_key_value_heads", None) or heads) * width,
        adapters=numbers,
        adapter_ranks=ranks,
    )
