"""Supervised training and greedy decoding in plain torch: what the warm start needs, and nothing distributed."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from rollout.component import StrictModel

TokenPair = tuple[Sequence[int], Sequence[int]]
"""Token ids of a prompt and of its response."""

IGNORED = -100


class SupervisedConfig(StrictModel):
    """Options of one supervised run."""

    num_steps: int = Field(600, ge=1, description="Optimiser steps.")
    batch_size: int = Field(256, ge=1, description="Demonstrations in one step.")
    lr: float = Field(4e-3, gt=0.0, description="Peak learning rate of AdamW.")
    lr_warmup_frac: float = Field(0.05, ge=0.0, lt=1.0, description="Share of the steps with a rising rate.")
    weight_decay: float = Field(0.01, ge=0.0, description="Decoupled weight decay.")
    max_grad_norm: float = Field(1.0, gt=0.0, description="Gradients are scaled down to this norm.")
    seed: int = Field(0, ge=0, description="Fixes the order of the demonstrations.")


def collate_pairs(pairs: Sequence[TokenPair], pad_token_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Right-padded tensors of prompt-response pairs.

    Returns:
        ``input_ids`` int64, ``attention_mask`` int64 and ``labels`` int64, each [batch seq]. Labels are aligned to
        tokens (not shifted) and ignore prompt and padding.
    """
    length = max(len(prompt) + len(response) for prompt, response in pairs)
    input_ids = torch.full((len(pairs), length), pad_token_id)
    attention_mask = torch.zeros((len(pairs), length), dtype=torch.int64)
    labels = torch.full((len(pairs), length), IGNORED)
    for row, (prompt, response) in enumerate(pairs):
        end = len(prompt) + len(response)
        input_ids[row, :end] = torch.tensor([*prompt, *response])
        attention_mask[row, :end] = 1
        labels[row, len(prompt) : end] = torch.tensor(list(response))
    return input_ids, attention_mask, labels


def train_supervised(
    model: Any,
    pairs: Sequence[TokenPair],
    pad_token_id: int,
    config: SupervisedConfig,
    on_step: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Minimise the mean cross-entropy of response tokens with AdamW; linear warm-up, then cosine decay to zero.

    Args:
        model: a causal language model of transformers; trained in place.
        pairs: the demonstrations; shuffled anew in each pass.
        on_step: called with the step (from 1) and its loss.

    Returns:
        The loss of each step, in nats per response token.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr, betas=(0.9, 0.98), weight_decay=config.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _lr_factor(step, config))
    rng, order, losses = random.Random(config.seed), [], []
    model.train()
    for step in range(1, config.num_steps + 1):
        while len(order) < config.batch_size:
            order += rng.sample(range(len(pairs)), len(pairs))
        batch, order = order[: config.batch_size], order[config.batch_size :]
        input_ids, attention_mask, labels = collate_pairs([pairs[i] for i in batch], pad_token_id)
        logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORED
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if on_step is not None:
            on_step(step, losses[-1])
    model.eval()
    return losses


def _lr_factor(step: int, config: SupervisedConfig) -> float:
    warmup = config.lr_warmup_frac * config.num_steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1.0, config.num_steps - warmup)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


@torch.no_grad()
def greedy_decode(
    model: Any, prompts: Sequence[Sequence[int]], eos_token_id: int, max_new_tokens: int, batch_size: int = 256
) -> list[list[int]]:
    """The most likely continuation of each prompt, token by token, with a key-value cache.

    Prompts of one length share a batch, so there is no padding and the result does not depend on the batch.

    Returns:
        The new tokens of each prompt, without the end-of-sequence token.
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        by_length[len(prompt)].append(index)
    found: list[list[int]] = [[] for _ in prompts]
    for indices in by_length.values():
        for start in range(0, len(indices), batch_size):
            chunk = indices[start : start + batch_size]
            rows = _decode_equal_lengths(model, torch.tensor([prompts[i] for i in chunk]), eos_token_id, max_new_tokens)
            for index, row in zip(chunk, rows, strict=True):
                found[index] = row
    return found


def _decode_equal_lengths(model: Any, input_ids: Tensor, eos_token_id: int, max_new_tokens: int) -> list[list[int]]:
    """Greedy decoding of ``input_ids`` [batch seq], without padding."""
    ended = torch.zeros(len(input_ids), dtype=torch.bool)
    new: list[Tensor] = []
    cache, step_ids = None, input_ids
    while len(new) < max_new_tokens and not ended.all():
        output = model(input_ids=step_ids, past_key_values=cache, use_cache=True)
        cache, token = output.past_key_values, output.logits[:, -1].argmax(dim=-1)
        ended = ended | (token == eos_token_id)
        new.append(token)
        step_ids = token[:, None]
    rows = torch.stack(new, dim=1).tolist()
    return [row[: row.index(eos_token_id)] if eos_token_id in row else row for row in rows]
