"""The policy: a causal language model that returns log-probabilities of the tokens that were sampled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from learner.config import ModelConfig, ReferencePlace
from learner.maths.logprobs import TokenLogprobs, head_logprobs, logit_logprobs, scatter_to_tokens
from learner.models import packing
from learner.models.lora.adapters import add_adapters
from learner.models.packing import PackedRows, RowOutputs
from learner.models.split_weights import (
    keep_in_host_memory,
    keep_split,
    num_weights,
    split_when_loaded,
    whole_while_used,
)
from rollout.component.mistakes import ModelFiles, ModelUnsupported

Entropy = Literal["none", "value", "grad"]
"""Not computed (0); computed for reports; computed with its gradient."""

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class PolicyModel(nn.Module):
    """A Hugging Face causal language model under ``lm``, whose output is log-probabilities and entropies.

    The logits of a whole sequence are never made: the LM head is applied to sampled tokens only, in chunks
    (:func:`learner.maths.logprobs.token_logprobs`). A model that does more than a linear map between its last hidden
    state and its logits (soft-capping, scaling) is noticed at construction and goes through its own logits instead.

    Args:
        lm: the model.
        pack_rows: run rows without padding (:mod:`learner.models.packing`), if the model can.

    Attributes:
        adapters: of these alone is trained, peft's configuration of them; None where all weights are.
    """

    adapters: Any = None

    def __init__(self, lm: PreTrainedModel, pack_rows: bool = False) -> None:
        super().__init__()
        self.lm = lm
        self.head = LogprobHead(lm.get_output_embeddings()) if has_plain_head(lm) else None
        self.packs_rows = pack_rows and packing.prepare(lm)
        self.attention_width = packing.attention_width(lm)

    def forward(
        self,
        token_ids: Tensor,
        action_mask: Tensor,
        temperature: float,
        entropy: Entropy = "none",
        lengths: Tensor | None = None,
        with_end_states: bool = False,
    ) -> dict[str, Tensor]:
        """Log-probabilities under softmax(logits / temperature).

        Rows are right-padded and attention is causal, so padding cannot reach a real token and needs no mask.

        Args:
            token_ids: [batch seq] int64.
            action_mask: [batch seq] bool; only these tokens are computed.
            entropy: whether to compute it, and whether gradients flow through it. An output that requires a gradient
                and is then not used would make ranks that share weights (ZeRO-3) communicate differently.
            lengths: [batch], the real tokens of each row; with them rows are packed, if the model can.
            with_end_states: whether to return these, too; each row needs an action token then.

        Returns:
            ``logprobs`` and ``entropy`` (nats), [batch seq] float32, aligned to tokens, 0 elsewhere; ``end_states``
            [batch dim] float32, the last hidden state (the logits, of a model whose head is not plain) from which the
            last action token of each row was predicted, without gradient.
        """
        rows = PackedRows.of(token_ids, lengths) if self.packs_rows and lengths is not None else None
        ids = token_ids[action_mask]
        if self.head is None:
            states = self._logits(token_ids, rows).before(action_mask)
            tokens = logit_logprobs(states, ids, temperature=temperature, with_entropy=entropy != "none")
        else:
            states = packing.last_hidden(self.lm.base_model, token_ids, rows).before(action_mask)
            tokens = self.head(states, ids, temperature, entropy)
        found = tokens.entropy if entropy == "grad" else tokens.entropy.detach()
        outputs = {
            "logprobs": scatter_to_tokens(tokens.logprobs, action_mask),
            "entropy": scatter_to_tokens(found, action_mask),
        }
        if with_end_states:
            last = action_mask.sum(dim=1).cumsum(0) - 1
            outputs["end_states"] = states.detach().index_select(0, last).float()
        return outputs

    def _logits(self, token_ids: Tensor, rows: PackedRows | None) -> RowOutputs:
        """The model's own logits, for one with more than a linear map at its end."""
        if rows is None:
            return RowOutputs(self.lm(input_ids=token_ids, use_cache=False).logits)
        return RowOutputs(self.lm(**packing.inputs_of(rows)).logits[0], rows)


class LogprobHead(nn.Module):
    """The LM head as a module that goes straight to log-probabilities; it shares the model's own parameters.

    It has to be a module that owns its weight: under ZeRO-3 a weight is only whole while its owner runs.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, output_embeddings: nn.Linear) -> None:
        super().__init__()
        self.weight = output_embeddings.weight
        self.bias = output_embeddings.bias

    def forward(self, states: Tensor, ids: Tensor, temperature: float, entropy: Entropy) -> TokenLogprobs:
        """See :func:`learner.maths.logprobs.head_logprobs`, and ``entropy`` of :meth:`PolicyModel.forward`."""
        tokens = head_logprobs(
            states, self.weight, ids, bias=self.bias, temperature=temperature, with_entropy=entropy != "none"
        )
        return tokens if entropy == "grad" else TokenLogprobs(tokens.logprobs, tokens.entropy.detach())


@torch.no_grad()
def has_plain_head(lm: PreTrainedModel) -> bool:
    """Whether the model's logits are its last hidden state times its output embedding; tried on four tokens."""
    head = lm.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        return False
    ids = torch.arange(4, device=head.weight.device)[None] % lm.config.get_text_config().vocab_size
    training = lm.training
    lm.eval()
    with whole_while_used(lm):
        logits = lm(input_ids=ids, use_cache=False).logits
        hidden = lm.base_model(input_ids=ids, use_cache=False).last_hidden_state
        found = head(hidden)
    lm.train(training)
    return torch.allclose(found.float(), logits.float(), rtol=1e-4, atol=1e-4)


def load_policy(config: ModelConfig, seed: int, settings: Mapping[str, Any] | None = None) -> PolicyModel:
    """The starting policy, ready for training: dropout off, gradient checkpointing as configured.

    Dropout is off because old and current log-probabilities must differ by the weights only.

    Args:
        seed: of whatever weights the files do not hold, so that every rank starts equal.
        settings: of DeepSpeed, to split the weights over ranks as they are loaded, see :func:`split_when_loaded`.

    Raises:
        UserError: the model cannot be loaded, or adapters do not fit it.
    """
    policy = _loaded(config, seed, settings)
    if config.lora is not None:
        policy.adapters = add_adapters(policy, policy.lm, config.lora, config.path, seed)
    return policy


def _loaded(config: ModelConfig, seed: int, settings: Mapping[str, Any] | None) -> PolicyModel:
    torch.manual_seed(seed)
    with split_when_loaded(settings):
        lm = load_pretrained(AutoModelForCausalLM, config.path, config, TORCH_DTYPES[config.dtype], "model.path")
    if lm.get_output_embeddings() is None:
        raise ModelUnsupported(
            f"model.path: {config.path!r} is not a causal language model: it has no output embedding"
        )
    return PolicyModel(lm, config.pack_rows)


def load_reference(
    config: ModelConfig,
    seed: int,
    device: torch.device | None = None,
    where: ReferencePlace = "replicated",
    settings: Mapping[str, Any] | None = None,
) -> PolicyModel:
    """The frozen starting policy, for a KL penalty: no gradients, no optimiser, no adapters.

    Args:
        device: where it runs; by default where it is loaded.
        where: its weights are while it does not run, see ``learner.reference``.
        settings: of DeepSpeed, for one that is split over the ranks.
    """
    reference = _loaded(config, seed, settings if where == "sharded" else None).requires_grad_(False).eval()
    if where == "sharded":
        keep_split(reference)
    elif device is not None and where == "offloaded":
        keep_in_host_memory(reference, device)
    elif device is not None:
        reference.to(device)
    return reference


def load_pretrained(loader: Any, path: str, config: ModelConfig, dtype: torch.dtype, where: str) -> PreTrainedModel:
    """Load a transformer with dropout off and gradient checkpointing as configured.

    Args:
        loader: one of the transformers Auto classes.
        where: the configuration key that ``path`` comes from, for messages.

    Raises:
        UserError: it cannot be loaded.
    """
    options: dict[str, Any] = {} if config.attention is None else {"attn_implementation": config.attention}
    try:
        model: PreTrainedModel = loader.from_pretrained(
            path, dtype=dtype, trust_remote_code=config.trust_remote_code, **options
        )
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelFiles(
            f"{where}: cannot load {path!r}: {reason} (give a folder in Hugging Face format, with config.json and "
            "weights, or the id of a model on a hub that can be reached)"
        ) from error
    _keep_used_conversions(model)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
    if config.recomputes(num_weights(model)):
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def _keep_used_conversions(model: PreTrainedModel) -> None:
    """Which of transformers' conversions have made this model's weights of its files'; only those can be undone.

    transformers notes them itself, but for weights that were split over ranks as they were loaded it notes all.
    """
    conversions = getattr(model, "_weight_conversions", None)
    if conversions is not None:
        model._weight_conversions = [conversion for conversion in conversions if conversion.was_used()]
