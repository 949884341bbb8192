"""How far the policy has moved from where it started, on a few trajectories of a batch. For reports only."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from learner.batch import MIN_PADDED_TOKENS, TrainBatch, collate
from learner.maths.losses.kl import kl_estimate
from learner.metrics import Mean, Metrics
from learner.models.policy import PolicyModel
from learner.models.split_weights import is_split
from learner.plan import micro_batches
from learner.update.rank import Rank
from rollout.component import UserError
from rollout.trajectory import ScoredTrajectory

SAMPLE = 16
"""Trajectories that one look is at, at most."""

log = logging.getLogger(__name__)


class StartDrift:
    """Compares the policy with the starting one every so many updates.

    Between two looks nothing is kept of the starting model: it is read from its files again, by rank 0 alone, unless
    the method has a frozen reference anyway. So a look costs time for loading, and for its length the memory of one
    copy of the policy's weights on rank 0.

    Args:
        every: updates between two looks; 0 for none. There is always one before the last update.
        load: gives the starting policy, frozen.
    """

    def __init__(self, every: int = 0, load: Callable[[], PolicyModel] | None = None) -> None:
        self._every, self._load = every, load

    def is_due(self, update_index: int, num_updates: int) -> bool:
        """Whether to look before this update, counted from 0."""
        number = update_index + 1
        return self._every > 0 and (number % self._every == 0 or number == num_updates)

    @torch.no_grad()
    def measure(self, rank: Rank, samples: Sequence[ScoredTrajectory]) -> Metrics:
        """KL of the policy as it is now to the starting one, k3 over sampled tokens. Called by every rank.

        All ranks run the policy on the same rows, since some of its weights may lie with each; rank 0 alone compares,
        and has the metric. No random stream is moved, no gradient or weight is touched.

        Returns:
            ``policy/kl_to_start`` on rank 0, NaN where the starting model can no longer be loaded; nothing elsewhere.
        """
        batch, settings = _sample(samples, rank), rank.settings
        pieces = list(_pieces(batch, settings.config.micro_batch_tokens))
        now = [_logprobs(rank.policy.forward, piece, settings.temperature) for piece in pieces]
        is_shared = rank.reference is not None and is_split(rank.reference)
        if rank.world.rank != 0 and not is_shared:
            return {}
        with _random_streams_kept():
            start = rank.reference if rank.reference is not None else self._start(rank.world.device)
            if start is None:
                return {"policy/kl_to_start": Mean(float("nan"), 1.0)}
            then = [_logprobs(start, piece, settings.temperature) for piece in pieces]
        if rank.world.rank != 0:
            return {}
        total = count = 0.0
        for piece, current, first in zip(pieces, now, then, strict=True):
            total += float(kl_estimate(current, first, piece.action_mask)[piece.action_mask].double().sum())
            count += float(piece.action_mask.sum())
        return {"policy/kl_to_start": Mean(total, count)}

    def _start(self, device: torch.device) -> PolicyModel | None:
        """The starting policy, or None where its files are gone, which is no reason to end a run."""
        assert self._load is not None
        try:
            return self._load().to(device)
        except UserError as error:
            log.warning("policy/kl_to_start is not known: %s", error)
            return None


def _sample(samples: Sequence[ScoredTrajectory], rank: Rank) -> TrainBatch:
    """Trajectories spread evenly over the batch, the same on every rank."""
    number = min(SAMPLE, len(samples))
    chosen = [samples[i * len(samples) // number] for i in range(number)]
    settings = rank.settings
    return collate(chosen, pad_token_id=settings.pad_token_id, seed=settings.seed).to(rank.world.device)


def _pieces(batch: TrainBatch, micro_batch_tokens: int) -> Iterator[TrainBatch]:
    lengths = [int(length) for length in batch.lengths]
    for rows in micro_batches(lengths, range(len(lengths)), micro_batch_tokens):
        yield batch.rows(torch.tensor(rows)).cut(max([MIN_PADDED_TOKENS, *(lengths[row] for row in rows)]))


def _logprobs(model: Callable[..., dict[str, Tensor]], piece: TrainBatch, temperature: float) -> Tensor:
    return model(token_ids=piece.token_ids, action_mask=piece.action_mask, temperature=temperature)["logprobs"]


@contextmanager
def _random_streams_kept() -> Iterator[None]:
    """Leave every random stream of this process as it was: loading a model seeds and draws."""
    python, numbers = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numbers)
