"""The training batch: where trajectories become tensors. It has no field for a clean score."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from rollout.trajectory import FinishReason, ScoredTrajectory

MIN_PADDED_TOKENS = 2
"""Batches are padded to at least this length, so that the shift by one token always leaves something."""


_MAX_REWARD = torch.finfo(torch.float32).max


class NonFiniteSampleError(ValueError):
    """The reward or a log-probability of a trajectory is NaN, or infinite in float32."""


@dataclass(frozen=True, slots=True)
class TrainBatch:
    """Trajectories as padded tensors; all axes are [batch seq] unless said otherwise.

    Attributes:
        token_ids: int64, right-padded.
        attention_mask: bool, true on real tokens.
        action_mask: bool, true on sampled tokens.
        rollout_logprobs: float32, of the distribution sampled from; 0 outside ``action_mask``.
        rewards: float32, observed reward on the last action token, 0 elsewhere.
        scores: [batch] float32, the observed reward of each trajectory.
        group_ids: [batch] int64; trajectories of one prompt and epoch share it.
        truncated: [batch] bool, the response was cut at the length limit.
        sample_seeds: [batch] int64, a seed that belongs to the trajectory whichever rank it lands on.
        policy_version_min: [batch] int64, oldest weight version that sampled it.
        prompt_keys: [batch] int64, a hash of what is asked, the same in every epoch and in rows that ask the same.
        answer_keys: [batch] int64, a hash of what is answered to it; 0 if the row stands for itself.
        gold_labels: [batch] float32, the true score where training may know it, else NaN.
        loss_weights: [batch] float32, factor of a trajectory's losses; 1 where prompts have equal numbers of samples.
    """

    token_ids: Tensor
    attention_mask: Tensor
    action_mask: Tensor
    rollout_logprobs: Tensor
    rewards: Tensor
    scores: Tensor
    group_ids: Tensor
    truncated: Tensor
    sample_seeds: Tensor
    policy_version_min: Tensor
    prompt_keys: Tensor
    answer_keys: Tensor
    gold_labels: Tensor
    loss_weights: Tensor

    def __len__(self) -> int:
        return self.token_ids.shape[0]

    @property
    def lengths(self) -> Tensor:
        """[batch] number of real tokens."""
        return self.attention_mask.sum(dim=1)

    def model_inputs(self) -> dict[str, Tensor]:
        """What every model's forward pass over these rows is given."""
        return {"token_ids": self.token_ids, "action_mask": self.action_mask, "lengths": self.lengths}

    def rows(self, index: Tensor | slice) -> TrainBatch:
        """Some rows of the batch, at the same padded length."""
        return TrainBatch(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def cut(self, length: int) -> TrainBatch:
        """The same rows, padded to ``length`` tokens only; everything beyond must be padding."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        return TrainBatch(**{name: x[:, :length] if x.dim() > 1 else x for name, x in columns.items()})

    @classmethod
    def placeholder(cls, pad_token_id: int = 0) -> TrainBatch:
        """One row without a sampled token: what a rank runs when it has no row left but the others have."""
        shape = (1, MIN_PADDED_TOKENS)
        ints, nothing = torch.zeros(1, dtype=torch.int64), torch.zeros(shape, dtype=torch.bool)
        return cls(
            token_ids=torch.full(shape, pad_token_id, dtype=torch.int64),
            attention_mask=~nothing,
            action_mask=nothing,
            rollout_logprobs=torch.zeros(shape),
            rewards=torch.zeros(shape),
            scores=torch.zeros(1),
            group_ids=ints,
            truncated=nothing[:, 0],
            sample_seeds=ints,
            policy_version_min=ints,
            prompt_keys=ints,
            answer_keys=ints,
            gold_labels=torch.full((1,), math.nan),
            loss_weights=torch.ones(1),
        )

    def to(self, device: torch.device) -> TrainBatch:
        """The batch on another device."""
        return TrainBatch(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def collate(
    samples: Sequence[ScoredTrajectory], rows: Sequence[int] | None = None, *, pad_token_id: int = 0, seed: int = 0
) -> TrainBatch:
    """Pad some trajectories of a global batch into tensors.

    Args:
        samples: the whole global batch; group numbers are counted over it, so that they agree on every rank.
        rows: which of them, in this order; default all. May be empty.
        pad_token_id: token that fills up rows.
        seed: the run's seed; with the trajectory's name it determines ``sample_seeds``.

    Returns:
        The batch, padded to the longest of the chosen rows (at least 2 tokens).

    Raises:
        ValueError: one of ``samples`` cannot be trained on (see :func:`check_trainable`).
    """
    for sample in samples:  # all of them, so that every rank comes to the same conclusion
        check_trainable(sample)
    chosen = [samples[i] for i in (range(len(samples)) if rows is None else rows)]
    numbers: dict[str, int] = {}
    for sample in samples:
        numbers.setdefault(sample.group_id, len(numbers))
    trajectories = [s.trajectory for s in chosen]
    lengths = torch.tensor([len(t.token_ids) for t in trajectories], dtype=torch.int64)
    position = torch.arange(max([MIN_PADDED_TOKENS, *lengths.tolist()])).expand(len(chosen), -1)
    is_real = position < lengths[:, None]

    def column(values: Iterable[Iterable[Any]], dtype: torch.dtype, fill: int = 0) -> Tensor:
        flat = torch.tensor(list(itertools.chain.from_iterable(values)), dtype=dtype)
        return torch.full(is_real.shape, fill, dtype=dtype).masked_scatter(is_real, flat)

    action_mask = column((t.action_mask for t in trajectories), torch.bool)
    rollout_logprobs = column((t.rollout_logprobs for t in trajectories), torch.float32)
    scores = torch.tensor([s.reward for s in chosen], dtype=torch.float32)
    last = torch.where(action_mask, position, -1).amax(dim=1, keepdim=True)
    return TrainBatch(
        token_ids=column((t.token_ids for t in trajectories), torch.int64, pad_token_id),
        attention_mask=is_real,
        action_mask=action_mask,
        rollout_logprobs=rollout_logprobs.masked_fill(~action_mask, 0.0),
        rewards=torch.where(action_mask & (position == last), scores[:, None], 0.0),
        scores=scores,
        group_ids=torch.tensor([numbers[s.group_id] for s in chosen], dtype=torch.int64),
        truncated=torch.tensor([t.finish_reason is FinishReason.LENGTH for t in trajectories], dtype=torch.bool),
        sample_seeds=torch.tensor([sample_seed(seed, t.trajectory_id) for t in trajectories], dtype=torch.int64),
        policy_version_min=torch.tensor([t.policy_version_min for t in trajectories], dtype=torch.int64),
        prompt_keys=torch.tensor([_key(_question(s)) for s in chosen], dtype=torch.int64),
        answer_keys=torch.tensor([_key(_question(s), s.answer_key) for s in chosen], dtype=torch.int64),
        gold_labels=torch.tensor([math.nan if s.gold_label is None else s.gold_label for s in chosen]),
        loss_weights=torch.tensor([s.weight for s in chosen], dtype=torch.float32),
    )


def check_trainable(sample: ScoredTrajectory) -> None:
    """Refuse a trajectory that would poison the batch.

    Raises:
        NonFiniteSampleError: its reward or a log-probability is not finite. The message names the trajectory.
        ValueError: it was aborted, its columns differ in length, or its first token claims to be sampled (nothing comes
            before it, so it has no log-probability). The message names the trajectory.
    """
    t = sample.trajectory
    kind: type[ValueError] = ValueError
    lengths = {"token_ids": len(t.token_ids), "action_mask": len(t.action_mask), "logprobs": len(t.rollout_logprobs)}
    if t.finish_reason is FinishReason.ABORT:
        problem = "it was aborted"
    elif len(set(lengths.values())) != 1 or not t.token_ids:
        problem = f"its columns must have one common length of at least 1, got {lengths}"
    elif t.action_mask[0]:
        problem = "its first token is marked as sampled, but no token comes before it"
    elif not abs(sample.reward) <= _MAX_REWARD:  # NaN too
        kind, problem = NonFiniteSampleError, f"its reward is {sample.reward}"
    elif not all(map(math.isfinite, t.rollout_logprobs)):
        kind, problem = NonFiniteSampleError, "one of its rollout_logprobs is not finite"
    else:
        return
    raise kind(f"trajectory {t.trajectory_id} cannot be trained on: {problem}")


def _question(sample: ScoredTrajectory) -> str:
    """What is asked, or the prompt's own name."""
    return sample.question_key or sample.trajectory.prompt_id


def _key(*names: str) -> int:
    """63 bits of a hash, which no process salts; 0 if one of the names is empty."""
    if "" in names:
        return 0
    return int.from_bytes(hashlib.blake2b("\x1f".join(names).encode(), digest_size=8).digest(), "big") >> 1


def sample_seed(seed: int, trajectory_id: str) -> int:
    """A 63-bit seed that depends on nothing but the run's seed and the trajectory's name."""
    return _key(str(seed), trajectory_id, "learner")
