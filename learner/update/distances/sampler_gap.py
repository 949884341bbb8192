"""How far sampler and learner are apart about the tokens of a batch, at a percentile and before the update."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from learner.batch import TrainBatch
from learner.engine.engine import MismatchError
from learner.maths.collective import Collective
from learner.metrics import Last, Metrics
from learner.update.limits import UpdateLimits


@dataclass(slots=True)
class _Kind:
    """One sort of trajectories: what it is called, its limit, its rows [batch] bool, and the gaps found so far."""

    key: str
    text: str
    limit: float
    rows: Tensor
    gaps: list[Tensor] = field(default_factory=list)


class SamplerGap:
    """Collects gaps (see :class:`learner.update.limits.UpdateLimits`) micro-batch by micro-batch, then compares.

    Fresh and stale trajectories are told apart because a stale one differs for a good reason: the weights have changed.
    What an algorithm replays is older still, and is left out.

    Args:
        limits: percentile and limits.
        batch: this rank's rows.
        version: weight version before the update.
        own: [batch] bool, rows of the batch itself rather than replayed ones.
    """

    def __init__(self, limits: UpdateLimits, batch: TrainBatch, version: int, own: Tensor) -> None:
        self.percentile = limits.gap_percentile
        fresh = batch.policy_version_min >= version
        self._device = batch.rewards.device
        self._kinds = (
            _Kind("guard/sampler_gap", "fresh responses", limits.max_gap, own & fresh),
            _Kind("guard/sampler_gap_stale", "responses of older weights", limits.max_stale_gap, own & ~fresh),
        )

    def add(self, logprobs: Tensor, micro: TrainBatch, rows: slice) -> None:
        """Take in the learner's log-probabilities [batch seq] of one micro-batch, which is ``rows`` of the batch."""
        if self.percentile is None:
            return
        gaps = (logprobs.detach() - micro.rollout_logprobs).abs()
        for kind in self._kinds:
            kind.gaps.append(gaps[micro.action_mask & kind.rows[rows][:, None]])

    def measure(self, world: Collective, where: str) -> Metrics:
        """The percentile of each kind over all ranks. A kind without a token has no metric.

        Raises:
            MismatchError: on every rank, if one is above its limit.
        """
        metrics: Metrics = {}
        problems = []
        level = self.percentile
        if level is None:
            return metrics
        for kind in self._kinds:
            gaps = world.gather(torch.cat([torch.zeros(0, device=self._device), *kind.gaps]))
            kind.gaps.clear()
            if not gaps.numel():
                continue
            value = percentile(gaps, level)
            metrics[kind.key] = Last(value)
            if value > kind.limit:
                problems.append(
                    f"the {100 * level:g}th percentile of |learner - sampler| log-probability over "
                    f"{gaps.numel()} tokens of {kind.text} is {value:.4g} nats, above {kind.limit:g}"
                )
        if problems:
            raise MismatchError(f"{where}: {'; '.join(problems)}", metrics)
        return metrics


def percentile(values: Tensor, level: float) -> float:
    """The smallest of the values [n], n >= 1, that at least the share ``level`` of them does not exceed."""
    rank = min(max(1, math.ceil(level * values.numel() - 1e-9)), values.numel())
    return float(values.float().kthvalue(rank).values)
