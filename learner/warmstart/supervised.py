"""Supervised training and greedy decoding in plain torch: what the warm start needs, and nothing distributed."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from rollout.component import StrictModel

Turns = Sequence[Sequence[int]]
"""Token ids of a demonstration: a prompt and its response, then what is said to that and the next response, and so on.

The entries at odd places, the responses, are learned; the others are context."""

IGNORED = -100


class SupervisedConfig(StrictModel):
    """Options of one supervised run."""

    num_steps: int = Field(2000, ge=1, description="Optimiser steps, at most.")
    num_warmup_steps: int = Field(50, ge=0, description="First steps, with a linearly rising learning rate.")
    num_decay_steps: int = Field(300, ge=1, description="Last steps, with a learning rate that falls to zero.")
    check_every_steps: int = Field(50, ge=1, description="How often it is asked whether the decay may begin.")
    batch_size: int = Field(64, ge=1, description="Demonstrations in one step.")
    lr: float = Field(3e-3, gt=0.0, description="Learning rate of AdamW between warm-up and decay.")
    weight_decay: float = Field(0.01, ge=0.0, description="Decoupled weight decay.")
    max_grad_norm: float = Field(1.0, gt=0.0, description="Gradients are scaled down to this norm.")
    seed: int = Field(0, ge=0, description="Fixes the order of the demonstrations.")


def collate_turns(demonstrations: Sequence[Turns], pad_token_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Right-padded tensors of demonstrations.

    Returns:
        ``input_ids`` int64, ``attention_mask`` int64 and ``labels`` int64, each [batch seq]. Labels are aligned to
        tokens (not shifted) and ignore everything but responses.
    """
    length = max(sum(map(len, turns)) for turns in demonstrations)
    input_ids = torch.full((len(demonstrations), length), pad_token_id)
    attention_mask = torch.zeros((len(demonstrations), length), dtype=torch.int64)
    labels = torch.full((len(demonstrations), length), IGNORED)
    for row, turns in enumerate(demonstrations):
        end = 0
        for place, turn in enumerate(turns):
            start, end = end, end + len(turn)
            input_ids[row, start:end] = torch.tensor(list(turn), dtype=torch.int64)
            if place % 2 == 1:
                labels[row, start:end] = input_ids[row, start:end]
        attention_mask[row, :end] = 1
    return input_ids, attention_mask, labels


def train_supervised(
    model: Any,
    demonstrations: Sequence[Turns],
    pad_token_id: int,
    config: SupervisedConfig,
    on_step: Callable[[int, float], None] | None = None,
    is_ready: Callable[[], bool] | None = None,
) -> list[float]:
    """Minimise the mean cross-entropy of response tokens with AdamW.

    The learning rate rises, stays, and falls along a half cosine. The fall begins as soon as ``is_ready`` says so, else
    in time to end at ``num_steps``: small models learn in leaps whose time differs much between seeds.

    Args:
        model: a causal language model of transformers; trained in place.
        demonstrations: shuffled anew in each pass.
        on_step: called with the step (from 1) and its loss.
        is_ready: asked every ``check_every_steps``, with the model in evaluation mode, until it says yes.

    Returns:
        The loss of each step, in nats per response token.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, betas=(0.9, 0.98), weight_decay=config.weight_decay)
    batches = _batches(demonstrations, config)
    losses: list[float] = []
    decay_start = max(0, config.num_steps - config.num_decay_steps)
    model.train()
    while len(losses) < decay_start + config.num_decay_steps and len(losses) < config.num_steps:
        for group in optimizer.param_groups:
            group["lr"] = config.lr * _lr_factor(len(losses), decay_start, config)
        input_ids, attention_mask, labels = collate_turns(next(batches), pad_token_id)
        logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=IGNORED
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        losses.append(loss.item())
        if on_step is not None:
            on_step(len(losses), losses[-1])
        may_ask = len(losses) < decay_start and len(losses) % config.check_every_steps == 0
        if may_ask and is_ready is not None and _ask(model, is_ready):
            decay_start = len(losses)
    model.eval()
    return losses


def _ask(model: Any, is_ready: Callable[[], bool]) -> bool:
    model.eval()
    ready = is_ready()
    model.train()
    return ready


def _batches(demonstrations: Sequence[Turns], config: SupervisedConfig) -> Iterator[list[Turns]]:
    """Endless batches; every demonstration comes once in each pass."""
    rng, order = random.Random(config.seed), list[int]()
    while True:
        while len(order) < config.batch_size:
            order += rng.sample(range(len(demonstrations)), len(demonstrations))
        yield [demonstrations[i] for i in order[: config.batch_size]]
        del order[: config.batch_size]


def _lr_factor(step: int, decay_start: int, config: SupervisedConfig) -> float:
    """Learning rate of step ``step`` (from 0) as a share of the full one."""
    rise = min(1.0, (step + 1) / (config.num_warmup_steps + 1))
    progress = max(0.0, (step - decay_start) / config.num_decay_steps)
    return rise * 0.5 * (1.0 + math.cos(math.pi * progress))


@torch.no_grad()
def greedy_decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    eos_token_id: int,
    max_new_tokens: int,
    batch_size: int = 256,
    pad_token_id: int | None = None,
) -> list[list[int]]:
    """The most likely continuation of each prompt, token by token, with a key-value cache.

    Args:
        pad_token_id: if given, prompts of all lengths share a batch, padded on the left: faster, and what comes out
            may differ by rounding with the batch. Else prompts of one length share a batch, and nothing depends on it.

    Returns:
        The new tokens of each prompt, without the end-of-sequence token.
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        by_length[len(prompt) if pad_token_id is None else 0].append(index)
    found: list[list[int]] = [[] for _ in prompts]
    for indices in by_length.values():
        for start in range(0, len(indices), batch_size):
            chunk = indices[start : start + batch_size]
            width = max(len(prompts[i]) for i in chunk)
            padded = [[pad_token_id or 0] * (width - len(prompts[i])) + list(prompts[i]) for i in chunk]
            mask = [[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in chunk]
            rows = _decode_batch(model, torch.tensor(padded), torch.tensor(mask), eos_token_id, max_new_tokens)
            for index, row in zip(chunk, rows, strict=True):
                found[index] = row
    return found


def _decode_batch(
    model: Any, input_ids: Tensor, attention_mask: Tensor, eos_token_id: int, max_new_tokens: int
) -> list[list[int]]:
    """Greedy decoding of ``input_ids`` [batch seq], padded on the left where ``attention_mask`` [batch seq] is 0."""
    ended = torch.zeros(len(input_ids), dtype=torch.bool)
    new: list[Tensor] = []
    cache, step_ids = None, input_ids
    position_ids = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)
    is_padded = not bool(attention_mask.all())
    while len(new) < max_new_tokens and not ended.all():
        output = model(
            input_ids=step_ids,
            attention_mask=attention_mask if is_padded else None,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        cache, token = output.past_key_values, output.logits[:, -1].argmax(dim=-1)
        ended = ended | (token == eos_token_id)
        new.append(token)
        step_ids, position_ids = token[:, None], position_ids[:, -1:] + 1
        attention_mask = torch.nn.functional.pad(attention_mask, (0, 1), value=1)
    rows = torch.stack(new, dim=1).tolist()
    return [row[: row.index(eos_token_id)] if eos_token_id in row else row for row in rows]
