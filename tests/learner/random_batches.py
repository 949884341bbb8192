"""Random batches and model outputs for the tests of algorithms."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from learner.algorithms.base import Algorithm
from learner.algorithms.records import Denominators, OldOutputs, PolicyInputs
from learner.batch import TrainBatch
from learner.models.spec import CriticOutput

F64 = torch.float64


def make_batch(seed: int, rows: int = 8, seq: int = 14, group: int = 4, dtype: torch.dtype = F64) -> TrainBatch:
    """Rows of two turns with an observation between them, a prompt before and padding after; binary scores."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.zeros(rows, seq, dtype=torch.bool)
    lengths = torch.randint(7, seq + 1, (rows,), generator=g)
    for row, length in enumerate(lengths.tolist()):
        mask[row, 2:4] = mask[row, 5:length] = True
    scores = (torch.rand(rows, generator=g) < 0.5).to(dtype) + 0.1 * torch.randn(rows, generator=g, dtype=dtype)
    rewards = torch.zeros(rows, seq, dtype=dtype)
    rewards[torch.arange(rows), lengths - 1] = scores
    rollout = torch.where(mask, -torch.rand((rows, seq), generator=g, dtype=dtype), 0.0)
    return TrainBatch(
        token_ids=torch.zeros(rows, seq, dtype=torch.long),
        attention_mask=torch.arange(seq) < lengths[:, None],
        action_mask=mask,
        rollout_logprobs=rollout,
        rewards=rewards,
        scores=scores,
        group_ids=torch.arange(rows) // group,
        truncated=torch.rand(rows, generator=g) < 0.3,
        sample_seeds=torch.randint(1 << 60, (rows,), generator=g),
        policy_version_min=torch.zeros(rows, dtype=torch.long),
        prompt_keys=torch.arange(rows) // group + 1,
        answer_keys=torch.zeros(rows, dtype=torch.long),
        gold_labels=torch.full((rows,), torch.nan, dtype=dtype),
        loss_weights=torch.ones(rows, dtype=dtype),
    )


def make_critic(algorithm: Algorithm, batch: TrainBatch, seed: int) -> CriticOutput:
    """Sorted random quantiles at action tokens, 0 elsewhere; of a categorical head random logits too."""
    config = algorithm.critic_config
    assert config is not None
    g = torch.Generator().manual_seed(seed)
    shape = (*batch.action_mask.shape, config.num_heads, config.num_quantiles)
    q = torch.randn(shape, generator=g, dtype=batch.rewards.dtype).sort(-1).values * 0.5 + 0.3
    end = torch.randn((len(batch), *shape[2:]), generator=g, dtype=batch.rewards.dtype).sort(-1).values
    values = torch.where(batch.action_mask[..., None, None], q, 0.0)
    logits = None
    if config.head == "categorical":
        logits = torch.randn((*shape[:3], config.bins[2]), generator=g, dtype=batch.rewards.dtype)
        logits = torch.where(batch.action_mask[..., None, None], logits, 0.0)
    return CriticOutput(values, torch.zeros_like(batch.rewards), end_values=end, bin_logits=logits)


def make_old(algorithm: Algorithm, batch: TrainBatch, seed: int) -> OldOutputs:
    """Old outputs near the sampler's."""
    g = torch.Generator().manual_seed(seed)
    noise = lambda: 0.1 * torch.randn(batch.rewards.shape, generator=g, dtype=batch.rewards.dtype)  # noqa: E731
    old, reference = (torch.where(batch.action_mask, batch.rollout_logprobs + noise(), 0.0) for _ in range(2))
    critic = make_critic(algorithm, batch, seed + 1) if algorithm.needs_critic else None
    found = OldOutputs(old, reference if algorithm.needs_reference else None, critic)
    if algorithm.masked_prompt_share is None:
        return found
    return replace(found, masked_logprobs=torch.where(batch.action_mask, old - 0.5 + 3.0 * noise(), 0.0))


def take(old: OldOutputs, rows: Tensor) -> OldOutputs:
    """Some rows of old outputs."""
    critic = old.critic
    if critic is not None:
        columns = {name: value[rows] for name, value in critic.optional().items()}
        critic = CriticOutput(critic.quantile_values[rows], critic.raw_crossing_frac[rows], **columns)
    reference = None if old.ref_logprobs is None else old.ref_logprobs[rows]
    hidden = None if old.masked_logprobs is None else old.masked_logprobs[rows]
    return replace(old, logprobs=old.logprobs[rows], ref_logprobs=reference, critic=critic, masked_logprobs=hidden)


def policy_inputs(
    algorithm: Algorithm, batch: TrainBatch, old: OldOutputs, logprobs: Tensor, entropy: Tensor | None = None
) -> PolicyInputs:
    """What the learner hands to a policy loss."""
    if entropy is None and algorithm.needs_entropy:
        entropy = torch.ones_like(logprobs)
    first = logprobs, old.logprobs, batch.rollout_logprobs, old.ref_logprobs, entropy, batch.action_mask
    return PolicyInputs(*first, old.masked_logprobs)


def counts(batch: TrainBatch) -> Denominators:
    """Global counts, were this the whole batch."""
    return Denominators(float(batch.action_mask.sum()), float(len(batch)))
