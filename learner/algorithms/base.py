"""What an algorithm is: reward shaping, estimation, a policy loss and a critic loss, composed of pure functions.

One update goes through an algorithm like this (``learner/update.py`` drives it, on every rank, on that rank's rows):

1. the engine computes ``old_logprobs``, and where asked for ``ref_logprobs`` and the old critic's ``QuantileValues``;
2. :meth:`Algorithm.estimate` turns rewards and old values into advantages and detached value targets, once;
3. for each micro-batch :meth:`Algorithm.policy_loss` and :meth:`Algorithm.critic_loss` give scalar losses whose
   denominators are *global* counts, so that their sum over micro-batches and ranks is the loss of the whole batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from learner.algorithms.corrections import CORRECTIONS
from learner.batch import TrainBatch
from learner.metrics import Metrics, MetricValue
from rollout.component import Component, ComponentSpec, UserError, build


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
    prior_mean: float = Field(0.0, description="Mean of the value distribution before training, in reward units.")
    prior_scale: float = Field(1.0, gt=0.0, description="Scale of returns before training, in reward units.")


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


class RewardCorrection(Component):
    """Changes or weighs observed rewards before estimation; combines with any algorithm and with other corrections.

    A correction sees what the learner sees: observed rewards, never clean ones. Statistics must be taken over all ranks
    (``world.gather``), so that every rank corrects alike.
    """

    needs_critic: bool = False
    """Whether it reads ``old.critic``."""

    @abstractmethod
    def __call__(self, current: CorrectedRewards, old: OldOutputs, world: Collective) -> CorrectedRewards:
        """Apply the correction to what earlier ones left."""

    def state_dict(self) -> dict[str, Any]:
        """Running statistics, for the checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore running statistics."""


class AlgorithmConfig(BaseModel):
    """Options every algorithm has."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    num_epochs: int = Field(1, ge=1, le=64, description="Passes over each batch.")
    num_minibatches: int = Field(
        1, ge=1, le=1024, description="Optimiser steps per pass; trajectories are split evenly."
    )
    kl_coef: float = Field(0.0, ge=0.0, description="Weight of the KL penalty towards the frozen starting policy.")
    kl_mode: Literal["reward", "loss"] = Field(
        "loss",
        description="'reward': k1 estimate subtracted from token rewards; 'loss': k3 estimate added to the loss.",
    )
    entropy_coef: float = Field(0.0, description="Weight of the mean token entropy that is added as a bonus.")
    reward_correction: tuple[ComponentSpec, ...] = Field(
        (),
        description="Corrections of the observed reward, applied in this order before estimation; each has a 'type'.",
    )

    @field_validator("reward_correction", mode="before")
    @classmethod
    def _names_are_types(cls, value: Any) -> Any:
        """A plain name stands for a correction with its default options; one alone for a list of one."""
        entries = [value] if isinstance(value, str | Mapping) else value
        if not isinstance(entries, Sequence):
            return entries
        return tuple({"type": entry} if isinstance(entry, str) else entry for entry in entries)


class Algorithm:
    """Base of every algorithm. Stateless but for running scales, which :meth:`state_dict` carries.

    Subclasses set ``needs_critic`` and, if they have one, a ``critic`` field of :class:`CriticConfig` in ``Config``.
    Subclasses that keep state extend :meth:`state_dict` and :meth:`load_state_dict` and call the ones here.
    """

    Config: type[AlgorithmConfig] = AlgorithmConfig
    needs_critic: bool = False
    min_samples_per_prompt: int = 1
    """Fewest samples of one prompt that give a signal; 2 for methods that compare them."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.corrections: list[RewardCorrection] = [
            build(spec, CORRECTIONS, RewardCorrection, f"algorithm.reward_correction.{index}")
            for index, spec in enumerate(config.reward_correction)
        ]
        for correction in self.corrections:
            if correction.needs_critic and not self.needs_critic:
                raise UserError(
                    f"algorithm.reward_correction: {type(correction).__name__} needs a critic, "
                    f"and {type(self).__name__} has none"
                )

    @property
    def needs_reference(self) -> bool:
        """Whether log-probabilities of the frozen starting policy are needed."""
        return bool(self.config.kl_coef > 0.0)

    @property
    def needs_old_logprobs(self) -> bool:
        """Whether :meth:`estimate` reads ``old.logprobs``.

        If not, an update of a single optimiser step saves a forward pass: estimation then gets NaN for them, and the
        policy loss gets ``logprobs.detach()``, which is the same number.
        """
        return bool(self.config.kl_coef > 0.0 and self.config.kl_mode == "reward")

    @property
    def needs_end_values(self) -> bool:
        """Whether ``old.critic.extra`` must hold ``end_values`` [batch head quantile], after each row's last token."""
        return False

    @property
    def needs_entropy(self) -> bool:
        """Whether the policy loss uses the token entropy with its gradient."""
        return bool(self.config.entropy_coef != 0.0)

    @property
    def critic_config(self) -> CriticConfig | None:
        """Shape of the critic, or None."""
        return self.config.critic if self.needs_critic else None

    def correct_rewards(self, batch: TrainBatch, old: OldOutputs, world: Collective) -> CorrectedRewards:
        """Apply the configured corrections, in order. Call it first in :meth:`estimate` and use what it returns."""
        current = CorrectedRewards(batch)
        for correction in self.corrections:
            current = correction(current, old, world)
        return current

    @abstractmethod
    def estimate(self, batch: TrainBatch, old: OldOutputs, world: Collective) -> Estimates:
        """Advantages and value targets of this rank's rows; statistics are taken over all ranks."""

    @abstractmethod
    def policy_loss(self, inputs: PolicyInputs, estimates: Estimates, counts: Denominators) -> LossOutput:
        """Policy loss of one micro-batch."""

    def critic_loss(
        self, output: CriticOutput, batch: TrainBatch, estimates: Estimates, counts: Denominators
    ) -> LossOutput:
        """Critic loss of one micro-batch."""
        raise NotImplementedError(f"{type(self).__name__} has no critic")

    def state_dict(self) -> dict[str, Any]:
        """Running scales, for the checkpoint."""
        return {"corrections": [correction.state_dict() for correction in self.corrections]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore running scales."""
        for correction, saved in zip(self.corrections, state.get("corrections", []), strict=True):
            correction.load_state_dict(saved)
