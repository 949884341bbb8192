"""What passes between the learner and an algorithm: outputs of the models, estimates, counts, losses.

Import these from :mod:`learner.algorithms.base`, which has them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from learner.batch import TrainBatch
from learner.metrics import Metrics, MetricValue


class Collective(Protocol):
    """The ranks that share one global batch, as far as pure maths needs to know of them."""

    def gather(self, values: Tensor) -> Tensor:
        """Concatenate the ranks' tensors along the first axis, in rank order; lengths may differ."""
        ...

    @property
    def rank(self) -> int:
        """Index of this process."""
        ...


class SingleProcess:
    """A collective of one."""

    rank = 0

    def gather(self, values: Tensor) -> Tensor:
        """The values themselves."""
        return values


def apply_globally(function: Callable[..., Tensor], world: Collective, *columns: Tensor) -> Tensor:
    """Apply ``function`` to columns gathered over all ranks and return this rank's part of the result.

    Args:
        function: maps tensors of global length n to one tensor of length n.
        columns: this rank's tensors, all of the same length along the first axis.
    """
    length = columns[0].shape[0]
    lengths = world.gather(torch.tensor([length]))
    start = int(lengths[: world.rank].sum())
    return function(*(world.gather(column) for column in columns))[start : start + length]


class CriticConfig(BaseModel):
    """Shape of the critic's head. A scalar critic is one head with one quantile."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    num_heads: int = Field(3, ge=1, le=64, description="Independent heads of the value ensemble.")
    num_quantiles: int = Field(200, ge=1, le=4096, description="Quantile levels of each head; 1 is a scalar critic.")
    monotonicity: Literal["sort", "cumsum", "none"] = Field(
        "sort", description="How each head's quantiles are kept in order."
    )
    head: Literal["quantile", "flow"] = Field(
        "quantile", description="'quantile': linear in the hidden state; 'flow': one step of a learned flow (DFPO)."
    )
    flow_hidden: int | None = Field(
        None, ge=1, description="Hidden units of the flow's velocity network; null: 64. With head 'flow' only."
    )
    prior_mean: float = Field(0.0, description="Mean of the value distribution before training, in reward units.")
    prior_scale: float = Field(1.0, gt=0.0, description="Scale of returns before training, in reward units.")

    @model_validator(mode="after")
    def _head_fits(self) -> CriticConfig:
        if self.head == "flow" and self.monotonicity != "sort":
            raise ValueError(
                f"head 'flow' sorts its quantiles, so monotonicity must be 'sort', got {self.monotonicity!r}"
            )
        if self.head != "flow" and self.flow_hidden is not None:
            raise ValueError("flow_hidden has no effect without head 'flow'; leave it out")
        return self


class VariationalCriticConfig(CriticConfig):
    """What the critic's model needs to know beside its heads, for methods such as VRPO; no part of a user's options.

    The algorithm derives it from its own options, so that no other method has an option that it would ignore.
    """

    bottleneck_dim: int | None = Field(None, ge=1, description="Size of the latent z below the heads; null for none.")
    sem_mode: Literal["none", "ppl_ent", "kl_ref"] = Field(
        "none", description="Outputs of the frozen LM head: surprise and entropy of each token; and the KL."
    )


@dataclass(frozen=True, slots=True)
class CriticOutput:
    """What a critic says of each token's state.

    Attributes:
        quantile_values: [batch seq head quantile], float32, aligned to tokens: entry t is the value just before token t
            is sampled; 0 where ``action_mask`` is false.
        raw_crossing_frac: [batch seq], share of neighbouring raw outputs that were out of order before sorting.
        extra: further outputs of special heads, by name.
    """

    quantile_values: Tensor
    raw_crossing_frac: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)


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
