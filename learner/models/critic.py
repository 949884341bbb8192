"""The critic: a transformer body and an ensemble of quantile heads. One head with one quantile is a scalar critic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from learner.config import ModelConfig
from learner.maths.logprobs import scatter_to_tokens
from learner.models import packing
from learner.models.bfloat16_pass import bfloat16_pass
from learner.models.bottleneck import PERTURBED_KL, BottleneckHeads
from learner.models.categorical import CategoricalHeads
from learner.models.flow import FlowHeads
from learner.models.frozen_head import FrozenHead, load_frozen_head
from learner.models.lora.adapters import trunk_with_own_adapters
from learner.models.packing import PackedRows
from learner.models.policy import PolicyModel, load_pretrained
from learner.models.quantile_heads import QuantileHeads
from learner.models.spec import END_VALUES, CriticConfig, VariationalCriticConfig
from learner.models.split_weights import split_when_loaded

__all__ = ["CriticModel", "QuantileHeads", "load_critic"]


class CriticModel(nn.Module):
    """A transformer body under ``body`` and heads under ``heads``; weights are float32.

    With ``autocast`` the body computes in bfloat16, with no second copy of its weights, and the heads still in float32:
    near 1, neighbouring bfloat16 numbers are further apart than neighbouring quantiles. With ``pack_rows`` the body
    runs rows without padding (:mod:`learner.models.packing`), if it can.

    Attributes:
        adapts: the body is the policy's frozen weights with adapters of the critic's own.
    """

    def __init__(
        self,
        body: PreTrainedModel,
        config: CriticConfig,
        seed: int,
        autocast: bool = False,
        frozen_head: FrozenHead | None = None,
        pack_rows: bool = False,
        adapts: bool = False,
    ) -> None:
        super().__init__()
        self.body = body
        self.packs_rows = pack_rows and packing.prepare(body)
        self.adapts = adapts
        self.attention_width = packing.attention_width(body)
        self.heads = make_heads(body.config.get_text_config().hidden_size, config, seed)
        self.frozen_head = frozen_head
        self.autocast = autocast

    def forward(
        self,
        token_ids: Tensor,
        action_mask: Tensor,
        end_positions: Tensor | None = None,
        noise_seeds: Tensor | None = None,
        perturbation_seeds: Tensor | None = None,
        semantic_mask: Tensor | None = None,
        flow_targets: Tensor | None = None,
        flow_times: Tensor | None = None,
        packed: bool = False,
        lengths: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Quantiles of the state before each sampled token.

        Args:
            token_ids: [batch seq] int64, right-padded.
            action_mask: [batch seq] bool; only these tokens are computed.
            end_positions: [batch] index of each row's last token, to also get ``end_values`` [batch head quantile],
                the quantiles of the state after it. Not together with noise.
            noise_seeds: [batch] int64, to sample the latent of a bottleneck; without them it is its mean.
            perturbation_seeds: [batch] int64, to compare the latent of a bottleneck with that of states with noise.
            semantic_mask: [batch seq] bool, the sampled tokens that the frozen LM head's outputs are for; without it
                they are for all, and are what the selection is made from.
            flow_targets: [batch seq K] atoms that a flow head also gives velocities towards, see
                :class:`~learner.models.flow.FlowHeads`.
            flow_times: [batch seq 2], at which times of the flow.
            packed: leave ``quantile_values`` as [n head quantile], one row for each sampled token in the order of
                ``x[action_mask]``. The way to [batch seq] and back costs more than a small head.
            lengths: [batch], the real tokens of each row; with them rows are packed, if the body can.

        Returns:
            the fields of :class:`CriticOutput` by name, aligned to tokens, 0 elsewhere; further outputs of the head
            under their own names.
        """
        rows = PackedRows.of(token_ids, lengths) if self.packs_rows and lengths is not None else None
        with bfloat16_pass(token_ids.device.type, enabled=self.autocast):
            hidden = packing.last_hidden(self.body, token_ids, rows)
        states = hidden.before(action_mask)
        num_actions = len(states)
        if end_positions is not None:
            states = torch.cat([states, hidden.at(end_positions)])
        with torch.autocast(token_ids.device.type, enabled=False):
            of_flow = self._flow(flow_targets, flow_times, action_mask)
            outputs = self.heads(states, *self._noise(noise_seeds, action_mask), *of_flow)
            if perturbation_seeds is not None:
                outputs = outputs | {PERTURBED_KL: self._gap(states[:num_actions], perturbation_seeds, action_mask)}
        by_token = {
            name: value[:num_actions]
            if packed and name == "quantile_values"
            else scatter_to_tokens(value[:num_actions], action_mask)
            for name, value in outputs.items()
        }
        if end_positions is not None:
            by_token[END_VALUES] = outputs["quantile_values"][num_actions:]
        if self.frozen_head is not None:
            mask, selected = (action_mask, False) if semantic_mask is None else (semantic_mask, True)
            with torch.autocast(token_ids.device.type, enabled=False):
                by_token |= self.frozen_head(token_ids, hidden, mask, selected, self.autocast)
        return by_token

    def _noise(self, seeds: Tensor | None, action_mask: Tensor) -> tuple[Tensor, ...]:
        """Noise for a bottleneck's latent, [n dim], or nothing."""
        if seeds is None:
            return ()
        if not isinstance(self.heads, BottleneckHeads):
            raise ValueError("noise_seeds are for a critic with a bottleneck, and this one has none")
        return (self.heads.noise(seeds, action_mask),)

    def _gap(self, states: Tensor, seeds: Tensor, action_mask: Tensor) -> Tensor:
        """How far noise moves the latent of each sampled token's state, [n]."""
        if not isinstance(self.heads, BottleneckHeads):
            raise ValueError("perturbation_seeds are for a critic with a bottleneck, and this one has none")
        return self.heads.gap(states, seeds, action_mask)

    def _flow(self, targets: Tensor | None, times: Tensor | None, action_mask: Tensor) -> tuple[Tensor, ...]:
        """Targets and times of a flow, [n K] and [n 2], or nothing."""
        if targets is None or times is None:
            return ()
        if not isinstance(self.heads, FlowHeads):
            raise ValueError("flow_targets are for a critic with a flow head, and this one has none")
        return targets[action_mask], times[action_mask]


def make_heads(
    hidden_size: int, config: CriticConfig, seed: int
) -> QuantileHeads | BottleneckHeads | FlowHeads | CategoricalHeads:
    """Heads on the hidden state, or on a bottleneck's latent."""
    if config.head == "categorical":
        return CategoricalHeads(hidden_size, config, seed)
    if config.head == "flow":
        return FlowHeads(hidden_size, config, seed)
    if isinstance(config, VariationalCriticConfig) and config.bottleneck_dim is not None:
        return BottleneckHeads(hidden_size, config.bottleneck_dim, config, seed, config.perturbation)
    return QuantileHeads(hidden_size, config, seed)


def load_critic(
    config: ModelConfig, critic: CriticConfig, seed: int, settings: Mapping[str, Any] | None = None
) -> CriticModel:
    """A critic whose body starts from a language model's weights and whose heads are new.

    Args:
        seed: of the heads, so that every rank starts equal.
        settings: of DeepSpeed, to split the body over ranks as it is loaded.

    Raises:
        UserError: the body cannot be loaded, or a frozen LM head is asked for and there is none.
    """
    torch.manual_seed(seed)
    where = "model.critic_path" if config.critic_path else "model.path"
    with split_when_loaded(settings):
        body = load_pretrained(AutoModel, config.critic_body_path, config, torch.float32, where)
    frozen = _frozen_head(config, critic, where)
    return CriticModel(body, critic, seed, config.dtype == "bfloat16", frozen, config.pack_rows)


def critic_over_policy(config: ModelConfig, critic: CriticConfig, seed: int, policy: PolicyModel) -> CriticModel:
    """A critic whose body is the policy's frozen weights with adapters of its own, and whose heads are new.

    Args:
        seed: of heads and adapters, so that every rank starts equal.
        policy: with adapters, and not in an engine yet.
    """
    body = trunk_with_own_adapters(policy.lm.base_model, seed)
    frozen = _frozen_head(config, critic, "model.path")
    return CriticModel(body, critic, seed, config.dtype == "bfloat16", frozen, config.pack_rows, adapts=True)


def _frozen_head(config: ModelConfig, critic: CriticConfig, where: str) -> FrozenHead | None:
    """The frozen LM head that a regulariser asks for."""
    if isinstance(critic, VariationalCriticConfig) and critic.sem_mode != "none":
        return load_frozen_head(config, where, with_body=critic.sem_mode == "kl_ref")
    return None
