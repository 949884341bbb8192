"""Conservative critics after CQL: over-estimates cost more, and responses behind the wrong prompt are valued less."""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Tensor

from learner.algorithms.records import Denominators, Estimates, LossOutput
from learner.algorithms.with_critic.ppo import PPO
from learner.batch import TrainBatch
from learner.masking import sequence_mean
from learner.maths.collective import Collective
from learner.maths.losses.value import value_loss
from learner.metrics import Mean, Metrics
from learner.models.spec import CriticOutput

CONTRAST = "contrast"
"""Key of ``Estimates.extra``: [batch], 1 where there are responses of other prompts, 0 where there are none."""


class CQL(PPO):
    """State-value analogues of conservative Q-learning (2006.04779), inspired by it; both forms are our choice.

    ``asym_weight`` w multiplies the squared error where V > R; the minimiser is the expectile at 1 / (1 + w) of the
    returns instead of their mean. ``contrast_coef`` alpha adds
    ``alpha * (mean V(mismatched) - mean V(s))`` to the loss, over responses put behind other prompts and over the
    batch itself, with V (mean over heads) clamped to the reward range, beyond which it has no gradient, and each
    trajectory weighing the same. w = 1 and alpha = 0 is PPO bit for bit. Targets and the sign of V - R are detached.
    """

    class Config(PPO.Config):
        """Options of the CQL analogues."""

        asym_weight: float = Field(3.0, gt=0.0, description="w, factor of the squared error where V > R; 1 is PPO's.")
        contrast_coef: float = Field(0.05, ge=0.0, description="alpha, weight of the contrast; 0 is off.")
        min_value: float = Field(0.0, description="Contrast: values are clamped from below, to the least reward.")
        max_value: float = Field(1.0, description="Contrast: values are clamped from above, to the largest reward.")

        @model_validator(mode="after")
        def _range(self) -> CQL.Config:
            if self.min_value >= self.max_value:
                raise ValueError(f"min_value must be below max_value, got {self.min_value} and {self.max_value}")
            return self

    @property
    def needs_mismatched(self) -> bool:
        """Only the contrast does."""
        return self.config.contrast_coef > 0.0

    def prepare(
        self, returns: Tensor, quantile_values: Tensor, targets: Tensor, batch: TrainBatch, world: Collective
    ) -> tuple[dict[str, Tensor], Metrics]:
        """A batch of a single prompt has no other one to be compared with: no contrast then."""
        if not self.needs_mismatched:
            return {}, {}
        groups = world.gather(batch.group_ids).unique().numel()
        return {CONTRAST: torch.full_like(batch.scores, float(groups > 1))}, {}

    def token_losses(
        self, quantile_values: Tensor, targets: Tensor, old_values: Tensor | None, extra: dict[str, Tensor]
    ) -> tuple[Tensor, Metrics]:
        """PPO's value loss of each token, [n], mean over heads, each times w where the head is above the target."""
        values, old = quantile_values.squeeze(-1), None if old_values is None else old_values.squeeze(-1)
        above = (values.detach() > targets).to(values.dtype)
        weights = 1.0 + (self.config.asym_weight - 1.0) * above
        losses = weights * value_loss(values, targets, old, self.config.value_clip)
        return losses.mean(dim=-1), {"critic/overestimated_frac": Mean(float(above.sum()), float(above.numel()))}

    def critic_loss(
        self, output: CriticOutput, batch: TrainBatch, estimates: Estimates, counts: Denominators
    ) -> LossOutput:
        """The value loss, less alpha times the mean value where the contrast is on."""
        result = super().critic_loss(output, batch, estimates, counts)
        if not self.needs_mismatched:
            return result
        weights = estimates.extra[CONTRAST][:, None]
        contrast, metrics = self._contrast(output, weights, batch, counts, "matched_value")
        return LossOutput(result.loss - contrast, result.metrics | metrics)

    def mismatched_loss(self, output: CriticOutput, batch: TrainBatch, counts: Denominators) -> LossOutput:
        """alpha times the mean value of responses behind other prompts."""
        return LossOutput(*self._contrast(output, 1.0, batch, counts, "mismatched_value"))

    def _contrast(
        self, output: CriticOutput, weights: Tensor | float, batch: TrainBatch, counts: Denominators, name: str
    ) -> tuple[Tensor, Metrics]:
        """alpha * mean over trajectories of the weighted mean clamped value, and that mean by itself, unweighted."""
        values = output.quantile_values.mean(dim=(-1, -2)).clamp(self.config.min_value, self.config.max_value)
        mean = sequence_mean(weights * values, batch.action_mask, counts.num_trajectories)
        rows = float(batch.action_mask.any(dim=1).sum())
        metrics: Metrics = {}
        if rows:
            metrics[f"critic/{name}"] = Mean(float(sequence_mean(values.detach(), batch.action_mask, 1.0)), rows)
        return self.config.contrast_coef * mean, metrics
