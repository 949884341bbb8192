"""Trains a reward model on preference pairs: one process, plain torch, for small models or one GPU."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.models.bfloat16_pass import bfloat16_pass
from learner.reward_model.losses import PairLoss
from learner.reward_model.model import RewardModel
from learner.reward_model.options import OptimisationConfig
from learner.reward_model.preference import bradley_terry_loss, smallest_losses

SCORING_BATCH = 64
"""Conversations in one forward pass without gradients."""


@dataclass(frozen=True, slots=True)
class TokenizedPair:
    """Token ids of two conversations with the same prompt."""

    chosen: Sequence[int]
    rejected: Sequence[int]


def num_steps(num_pairs: int, config: OptimisationConfig, noise_rate: float = 0.0) -> int:
    """Optimiser steps in all. Passes after the first are shorter by ``noise_rate``."""
    kept = max(1, round((1.0 - noise_rate) * num_pairs))
    first, later = (math.ceil(count / config.batch_size) for count in (num_pairs, kept))
    total = first + (config.num_epochs - 1) * later
    return min(total, config.num_steps or total)


def train_reward_model(
    model: RewardModel,
    pairs: Sequence[TokenizedPair],
    loss: PairLoss,
    config: OptimisationConfig,
    seed: int,
    on_step: Callable[[int, float], None] | None = None,
) -> list[float]:
    """Minimise ``loss`` of the pairs' margins with AdamW.

    Args:
        model: trained in place.
        seed: fixes the order of the pairs.
        on_step: called with the step (from 1) and its loss.

    Returns:
        The loss of each step.

    Raises:
        FloatingPointError: a loss or a gradient is not finite.
    """
    total = num_steps(len(pairs), config, loss.noise_rate)
    parameters = [parameter for parameter in model.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    losses: list[float] = []
    for batch in _batches(model, pairs, loss, config, seed):
        if len(losses) == total:
            break
        for group in optimizer.param_groups:
            group["lr"] = config.lr * _lr_factor(len(losses), total, config.warmup_frac)
        optimizer.zero_grad(set_to_none=True)
        value = _backward(model, batch, loss, config)
        norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        if not math.isfinite(value) or not math.isfinite(float(norm)):
            raise FloatingPointError(f"step {len(losses) + 1}: loss {value}, gradient norm {float(norm)}")
        optimizer.step()
        losses.append(value)
        if on_step is not None:
            on_step(len(losses), value)
    return losses


def score_pairs(model: RewardModel, pairs: Sequence[TokenizedPair]) -> list[tuple[float, float]]:
    """Scores of the chosen and of the rejected conversation of each pair. Similar lengths are scored together."""
    rows = [row for pair in pairs for row in (pair.chosen, pair.rejected)]
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    scores = [0.0] * len(rows)
    for start in range(0, len(rows), SCORING_BATCH):
        chunk = order[start : start + SCORING_BATCH]
        for index, score in zip(chunk, model.score([rows[index] for index in chunk]), strict=True):
            scores[index] = score
    return list(zip(scores[::2], scores[1::2], strict=True))


def _backward(model: RewardModel, batch: Sequence[TokenizedPair], loss: PairLoss, config: OptimisationConfig) -> float:
    """Add the batch's gradient to the parameters; returns its loss.

    With micro-batches the margins come first, without activations; the loss's derivative by each of them then weighs
    the pair's own gradient. This is exact for losses that are no mean over pairs as well.
    """
    size = config.micro_batch_size or len(batch)
    parts = [batch[start : start + size] for start in range(0, len(batch), size)]
    if len(parts) == 1:
        value = loss(_margins(model, batch, config))
        value.backward()
        return value.item()
    with torch.no_grad():
        margins = torch.cat([_margins(model, part, config) for part in parts])
    margins.requires_grad_()
    value = loss(margins)
    (slopes,) = torch.autograd.grad(value, margins)
    for part, slope in zip(parts, slopes.split(size), strict=True):
        (_margins(model, part, config) * slope).sum().backward()
    return value.item()


def _margins(model: RewardModel, batch: Sequence[TokenizedPair], config: OptimisationConfig) -> Tensor:
    """Score of the chosen minus that of the rejected conversation, [n]."""
    with _autocast(model, config):
        scores = model.logits([pair.chosen for pair in batch] + [pair.rejected for pair in batch])
    return scores[: len(batch)] - scores[len(batch) :]


def _autocast(model: RewardModel, config: OptimisationConfig) -> AbstractContextManager[None]:
    is_low = config.dtype == "bfloat16"
    return bfloat16_pass(model.model.device.type, enabled=is_low)


def _batches(
    model: RewardModel, pairs: Sequence[TokenizedPair], loss: PairLoss, config: OptimisationConfig, seed: int
) -> Iterator[list[TokenizedPair]]:
    """The batches of all passes; each pass is shuffled anew, and after the first leaves out what the loss distrusts."""
    rng = random.Random(seed)
    for epoch in range(config.num_epochs):
        kept = list(range(len(pairs)))
        if epoch and loss.noise_rate > 0.0:
            margins = torch.tensor([chosen - rejected for chosen, rejected in score_pairs(model, pairs)])
            trusted = smallest_losses(bradley_terry_loss(margins), loss.noise_rate)
            kept = [index for index in kept if trusted[index]]
        rng.shuffle(kept)
        for start in range(0, len(kept), config.batch_size):
            yield [pairs[index] for index in kept[start : start + config.batch_size]]


def _lr_factor(step: int, total: int, warmup_frac: float) -> float:
    """Learning rate of step ``step`` (from 0) as a share of the highest one."""
    warmup = math.ceil(warmup_frac * total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
