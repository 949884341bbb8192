"""What passes between the learner and an algorithm: outputs of the models, estimates, counts, losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from learner.batch import TrainBatch
from learner.metrics import Metrics, MetricValue
from learner.models.kept_values import KeptValues
from learner.models.spec import CriticOutput, Place

R = TypeVar("R", bound="Rows")


@dataclass(frozen=True)
class Rows:
    """What a piece of an algorithm carries from the estimation to its loss. A subclass names the tensors.

    Every field is a tensor, [batch] or [batch seq ...] (an axis of seq that is 1 serves every token), or None. The
    learner cuts it like every other estimate, so a piece sees the rows of its micro-batch and need not know of others.
    """

    def take(self: R, index: Tensor) -> R:
        """Some rows of the batch."""
        return self._map(lambda values: values[index])

    def cut(self: R, place: Place) -> R:
        """The rows and columns of a micro-batch; an axis of seq that is 1 stays as it is."""
        return self._map(lambda values: values[place] if values.dim() > 1 else values[place[0]])

    def of_tokens(self: R, mask: Tensor) -> R:
        """Entries of each sampled token: [batch], [batch 1 ...] or [batch seq ...] -> [n ...]."""

        def spread(values: Tensor) -> Tensor:
            wide = values[:, None] if values.dim() == 1 else values
            return wide.expand(mask.shape + wide.shape[2:])[mask]

        return self._map(spread)

    def tensors(self) -> dict[str, Tensor]:
        """What is there, by name."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}

    def _map(self: R, change: Any) -> R:
        return replace(self, **{name: change(value) for name, value in self.tensors().items()})


@dataclass(frozen=True)
class SampleWeights(Rows):
    """How far to trust each trajectory: factors [batch] of its policy loss and of its critic loss; None is 1."""

    policy: Tensor | None = None
    critic: Tensor | None = None


@dataclass(frozen=True, slots=True)
class OldOutputs:
    """Outputs of the models as they were before the update; detached, aligned to tokens.

    Attributes:
        logprobs: [batch seq] of the policy (the proximal policy of the clip).
        ref_logprobs: [batch seq] of the frozen reference policy, or None.
        ref_entropy: [batch seq] entropy of its next-token distribution at each action token, in nats, or None.
        ref_end_states: [batch dim] its last hidden state, from which a row's last action token was predicted, or None.
        critic: the old critic's output, or None for critic-free algorithms.
        masked_logprobs: [batch seq] of the policy behind prompts of which part is hidden, or None.
    """

    logprobs: Tensor
    ref_logprobs: Tensor | None = None
    critic: CriticOutput | None = None
    ref_entropy: Tensor | None = None
    ref_end_states: Tensor | None = None
    masked_logprobs: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Estimates:
    """What the losses need; everything detached, aligned to tokens, 0 outside ``action_mask``.

    Attributes:
        advantages: [batch seq], normalised as the algorithm wants it.
        value_targets: [batch seq atom] atoms of the return distribution (K = 1: a point), or None.
        old_values: [batch seq head quantile] of the old critic, or None.
        kept_targets, kept_old_values: the two in parts, where there are many micro-batches; :meth:`cut` then fills
            ``value_targets`` and ``old_values``, which are None until it does.
        metrics: diagnostics of the estimation.
        extra: what pieces carry to their losses, each under its own key: the piece itself, or the class of the rows
            where only one piece has such.
    """

    advantages: Tensor
    value_targets: Tensor | None = None
    old_values: Tensor | None = None
    metrics: Metrics = field(default_factory=dict)
    extra: Mapping[Any, Rows] = field(default_factory=dict)
    kept_targets: KeptValues | None = None
    kept_old_values: KeptValues | None = None

    def carried(self, key: Any, kind: type[R]) -> R | None:
        """What was carried under ``key``, or None."""
        found = self.extra.get(key)
        if found is not None and not isinstance(found, kind):
            raise TypeError(f"expected {kind.__name__}, got {type(found).__name__}")
        return found

    @property
    def weights(self) -> SampleWeights:
        """The factors of each trajectory's losses."""
        return self.carried(SampleWeights, SampleWeights) or SampleWeights()

    def rows(self, index: Tensor) -> Estimates:
        """The estimates of some rows of the batch (metrics stay behind)."""
        extra = {key: rows.take(index) for key, rows in self.extra.items()}
        return self._map(lambda values: values[index], lambda kept: kept.whole()[index], extra)

    def cut(self, place: Place) -> Estimates:
        """The estimates of one micro-batch: its rows, cut to its length (metrics stay behind)."""
        extra = {key: rows.cut(place) for key, rows in self.extra.items()}
        return self._map(lambda values: values[place], lambda kept: kept.at(place), extra)

    def _map(
        self, change: Callable[[Tensor], Tensor], fetch: Callable[[KeptValues], Tensor], extra: Mapping[Any, Rows]
    ) -> Estimates:
        def taken(values: Tensor | None, kept: KeptValues | None) -> Tensor | None:
            if kept is not None:
                return fetch(kept)
            return None if values is None else change(values)

        return Estimates(
            advantages=change(self.advantages),
            value_targets=taken(self.value_targets, self.kept_targets),
            old_values=taken(self.old_values, self.kept_old_values),
            extra=extra,
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
    algorithm asks for it with ``needs_entropy``, ``masked_logprobs`` (see :class:`OldOutputs`) unless it has a
    ``masked_prompt_share``.
    """

    logprobs: Tensor
    old_logprobs: Tensor
    rollout_logprobs: Tensor
    ref_logprobs: Tensor | None
    entropy: Tensor | None
    action_mask: Tensor
    masked_logprobs: Tensor | None = None


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
        score_variances: [batch] how uncertain each score is that a correction estimated, in squared units; None for 0.
    """

    batch: TrainBatch
    policy_weights: Tensor | None = None
    critic_weights: Tensor | None = None
    metrics: Metrics = field(default_factory=dict)
    score_variances: Tensor | None = None

    def with_scores(self, scores: Tensor, metrics: Mapping[str, MetricValue]) -> CorrectedRewards:
        """Replace the trajectories' scores [batch]; the reward on each last action token becomes the new score.

        How uncertain they are is not known any more: whoever replaces them may say.
        """
        mask = self.batch.action_mask
        position = torch.arange(mask.shape[1], device=mask.device)
        last = torch.where(mask, position, -1).amax(dim=1, keepdim=True)
        at_last = mask & (position == last)
        rewards = torch.where(at_last, scores[:, None].to(self.batch.rewards), self.batch.rewards)
        batch = replace(self.batch, scores=scores.to(self.batch.scores), rewards=rewards)
        return replace(self, batch=batch, score_variances=None, metrics={**self.metrics, **metrics})
