"""The starting LM head, frozen, over a critic's hidden states: how surprising and how open the text is to them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from learner.config import ModelConfig
from learner.maths.logprobs import head_logprobs, scatter_to_tokens
from learner.models import packing
from learner.models.bfloat16_pass import bfloat16_pass
from learner.models.head_kl import head_kl
from learner.models.packing import RowOutputs
from learner.models.policy import has_plain_head, load_pretrained
from rollout.component.mistakes import ModelUnsupported

SEMANTIC_NLL, SEMANTIC_ENTROPY, SEMANTIC_KL = "semantic_nll", "semantic_entropy", "semantic_kl"
"""Names of the outputs, each [batch seq]."""


class FrozenHead(nn.Module):
    """``p_t = softmax(W h_t)`` with W the LM head of the starting model; gradients go through h_t only (2508.03058).

    W is a buffer that no checkpoint holds: it is read again from the starting model. So is the whole starting body
    where the KL to it is asked for; it is kept outside the tree of modules, so that no optimiser engine touches it.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, reference: PreTrainedModel | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach().float().clone(), persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach().float().clone(), persistent=False)
        self._reference = () if reference is None else (reference.requires_grad_(False).eval(),)

    def forward(
        self, token_ids: Tensor, hidden: RowOutputs, mask: Tensor, selected: bool, autocast: bool
    ) -> dict[str, Tensor]:
        """Outputs at the true positions of ``mask``, 0 elsewhere.

        Args:
            token_ids: [batch seq].
            hidden: of the critic's body, unshifted; where its rows are packed, so are those of the starting body.
            mask: [batch seq] bool.
            selected: whether ``mask`` is the final selection, for the loss; with a starting body that gives
                :data:`SEMANTIC_KL` and nothing else. Otherwise surprise and entropy in nats.
            autocast: whether bodies compute in bfloat16.
        """
        if not (selected and self._reference):
            tokens = head_logprobs(hidden.before(mask).float(), self.weight, token_ids[mask], bias=self.bias)
            logprobs, entropy = (scatter_to_tokens(x, mask) for x in tokens)
            return {SEMANTIC_NLL: -logprobs, SEMANTIC_ENTROPY: entropy}
        (body,) = self._reference
        device = token_ids.device
        with torch.no_grad(), bfloat16_pass(device.type, enabled=autocast):
            start = packing.last_hidden(body.to(device), token_ids, hidden.rows)
        states, frozen = (x.before(mask).float() for x in (hidden, start))
        return {SEMANTIC_KL: scatter_to_tokens(head_kl(states, frozen, self.weight, self.bias), mask)}


class _CausalLoader:
    """``AutoModelForCausalLM`` that remembers which weights the files did not hold."""

    def __init__(self) -> None:
        self.missing: list[str] = []

    def from_pretrained(self, path: str, **options: Any) -> PreTrainedModel:
        """See transformers."""
        model, info = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True, **options)
        self.missing = sorted(info["missing_keys"])
        return model


def load_frozen_head(config: ModelConfig, where: str, with_body: bool) -> FrozenHead:
    """Read the LM head, and with ``with_body`` the body, of the model that the critic starts from.

    Raises:
        UserError: it cannot be loaded, has no LM head (a reward model), or does more than a linear map with it.
    """
    loader = _CausalLoader()
    lm = load_pretrained(loader, config.critic_body_path, config, torch.float32, where)
    head = lm.get_output_embeddings()
    names = {name for name, parameter in lm.named_parameters() if head is not None and parameter is head.weight}
    if head is None or names & set(loader.missing):
        raise ModelUnsupported(
            f"{where}: {config.critic_body_path!r} has no LM head, which sem_mode needs; set it to 'none'"
        )
    if not has_plain_head(lm):
        raise ModelUnsupported(
            f"{where}: sem_mode needs logits that are linear in the last hidden state; set it to 'none'"
        )
    if with_body and config.pack_rows:
        packing.prepare(lm)  # the critic's body is one of the same kind, so both can or neither
    return FrozenHead(head.weight, head.bias, lm.base_model if with_body else None)
