"""The numbers of a transformer that its memory and speed follow from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cluster.config.model_folder import load_model_config
from cluster.config.run_config import RunConfig
from rollout.component.mistakes import ModelFiles


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """A transformer.

    Attributes:
        num_weights: tied ones once.
        num_layers, hidden, inner, vocab: layers, width, width of the feed-forward part, words.
        query, key: widths of all query heads and of all key heads of a layer.
    """

    num_weights: int
    num_layers: int
    hidden: int
    inner: int
    vocab: int
    query: int
    key: int

    @property
    def cache_numbers(self) -> int:
        """Numbers of keys and values that a token takes in a cache."""
        return 2 * self.num_layers * self.key


def policy_shape(config: RunConfig) -> ModelShape:
    """Of ``model.path``.

    Raises:
        UserError: there is no such config.json, or it is not that of a causal language model.
    """
    return _shape(config, config.model.path, "model.path", "AutoModelForCausalLM")


def critic_shape(config: RunConfig) -> ModelShape:
    """Of the critic's transformer body.

    Raises:
        UserError: there is no such config.json, or it cannot be used.
    """
    key = "model.path" if config.model.critic_path is None else "model.critic_path"
    return _shape(config, config.model.critic_body_path, key, "AutoModel")


def _shape(config: RunConfig, path: str, key: str, kind: str) -> ModelShape:
    import torch
    import transformers

    trust = config.model.trust_remote_code
    found = load_model_config(path, key, trust, with_weights=False)
    try:
        with torch.device("meta"):  # shapes alone
            made = getattr(transformers, kind).from_config(found, trust_remote_code=trust)
    except Exception as error:  # of transformers or of the model's own code
        raise ModelFiles(f"{key}: {path}/config.json cannot be used: {' '.join(str(error).split())[:300]}") from error
    text: Any = found.get_text_config()
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return ModelShape(
        num_weights=sum(parameter.numel() for parameter in made.parameters()),
        num_layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        inner=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,  # GPT-2's way
        vocab=text.vocab_size,
        query=heads * width,
        key=(getattr(text, "num_key_value_heads", None) or heads) * width,
    )
