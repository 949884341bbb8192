"""Prompts of which part is hidden, for a policy that is to be told apart from itself with the whole prompt."""

from __future__ import annotations

import torch
from torch import Tensor

from learner.algorithms.streams import row_uniforms
from learner.batch import TrainBatch


def with_hidden_prompt(batch: TrainBatch, share: float, pad_token_id: int) -> Tensor:
    """``batch.token_ids`` with tokens of the prompt replaced by ``pad_token_id``, [batch seq].

    The prompt is everything before a row's first sampled token. Each of its tokens is hidden with probability
    ``share``, by draws that belong to the trajectory, so that rank, micro-batch and padding do not matter.
    """
    mask = batch.action_mask
    before = mask.int().cumsum(dim=1) == 0
    uniforms = row_uniforms(batch.sample_seeds.cpu(), "hidden_prompt", mask.shape[1]).to(mask.device)
    hidden = before & batch.attention_mask & (uniforms < share)
    return torch.where(hidden, torch.full_like(batch.token_ids, pad_token_id), batch.token_ids)
