"""What passes between the learner and an algorithm: outputs of the models, estimates, counts, losses.

Import these from :mod:`learner.algorithms.base`, which has them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from learner.batch import TrainBatch
from learner.metrics import Metrics, MetricValue
from learner.models.spec import CriticOutput


@dataclass(frozen=True, slots=True)
class OldOutputs:
    """Outputs of the models as they were before the update; detached, aligned to tokens.

    Attributes:
        logprobs: [batch seq] of the policy (the proximal policy of the clip).
        ref_logprobs: [batch seq] of the frozen reference policy, or None.
        critic: the old critic's output, or None for critic-free algorithms.
    """

    logprobs: Tensor
    ref_logprobs: Tensor | None = None
    critic: CriticOutput | None = None


@dataclass(frozen=True, slots=True)
class Estimates:
    """What the losses need; everything detached, aligned to tokens, 0 outside ``action_mask``.

    Attributes:
        advantages: [batch seq], normalised as the algorithm wants it.
        value_targets: [batch seq atom] atoms of the return distribution (K = 1: a point), or None.
        old_values: [batch seq head quantile] of the old critic, or None.
        metrics: diagnostics of the estimation.
        extra: whatever else an algorithm carries from estimation to its losses, each [batch] or [batch seq ...]
            (an axis of seq that is 1 serves every token).
    """

    advantages: Tensor
    value_targets: Tensor | None = None
    old_values: Tensor | None = None
    metrics: Metrics = field(default_factory=dict)
    extra: dict[str, Tensor] = field(default_factory=dict)

    def rows(self, index: Tensor) -> Estimates:
        """The estimates of some rows of the batch (metrics stay behind)."""
        pick = lambda x: None if x is None else x[index]  # noqa: E731
        return Estimates(
            self.advantages[index],
            pick(self.value_targets),
            pick(self.old_values),
            {},
            {name: value[index] for name, value in self.extra.items()},
        )


@dataclass(frozen=True, slots=True)
class Denominators:
    """Global counts that losses divide by; the same on every rank and micro-batch of one optimiser step.

    Attributes:
        num_action_tokens: sampled tokens of the whole (mini-)batch over all ranks, at least 1.
        num_trajectories: its trajectories, at least 1.
    """

    num_action_tokens: float
    num_trajectories: float


@dataclass(frozen=True, slots=True)
class PolicyInputs:
    """Arguments of a policy loss, each [batch seq], aligned to tokens.

    ``logprobs`` and ``entropy`` carry gradients; everything else is detached. ``entropy`` is None unless the
    algorithm asks for it with ``needs_entropy``.
    """

    logprobs: Tensor
    old_logprobs: Tensor
    rollout_logprobs: Tensor
    ref_logprobs: Tensor | None
    entropy: Tensor | None
    action_mask: Tensor


@dataclass(frozen=True, slots=True)
class LossOutput:
    """A scalar loss (this micro-batch's share of the global one) and its metrics."""

    loss: Tensor
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class CorrectedRewards:
    """The batch with its observed rewards corrected, and weights that say how far to trust each trajectory.

    Attributes:
        batch: the batch; :meth:`with_scores` keeps ``scores`` and ``rewards`` in step.
        policy_weights: [batch] factor of each trajectory's policy loss, or None for 1.
        critic_weights: [batch] factor of each trajectory's critic loss, or None for 1.
        metrics: what was done, under ``correction/...``.
    """

    batch: TrainBatch
    policy_weights: Tensor | None = None
    critic_weights: Tensor | None = None
    metrics: Metrics = field(default_factory=dict)

    def with_scores(self, scores: Tensor, metrics: Mapping[str, MetricValue]) -> CorrectedRewards:
        """Replace the trajectories' scores [batch]; the reward on each last action token becomes the new score."""
        mask = self.batch.action_mask
        position = torch.arange(mask.shape[1], device=mask.device)
        last = torch.where(mask, position, -1).amax(dim=1, keepdim=True)
        at_last = mask & (position == last)
        rewards = torch.where(at_last, scores[:, None].to(self.batch.rewards), self.batch.rewards)
        batch = replace(self.batch, scores=scores.to(self.batch.scores), rewards=rewards)
        return replace(self, batch=batch, metrics={**self.metrics, **metrics})
