"""Responses behind the wrong prompt are to be valued less."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field, model_validator
from torch import Tensor

from learner.algorithms.critic.terms.base import BatchView, CriticTerm, TokenView, Weighted
from learner.algorithms.records import Denominators, Estimates, LossOutput, Rows
from learner.batch import TrainBatch
from learner.masking import sequence_mean
from learner.maths.collective import Collective
from learner.metrics import Mean, Metrics
from learner.models.spec import CriticOutput


@dataclass(frozen=True)
class HasOthers(Rows):
    """Whether the batch has responses of other prompts, [batch]: 1 or 0 in every row."""

    flags: Tensor


class Contrast(CriticTerm):
    """``alpha * (mean V(mismatched) - mean V(s))`` (after CQL, 2006.04779; our form).

    Over responses put behind other prompts and over the batch itself, with V (mean over heads) clamped to the reward
    range, beyond which it has no gradient, and each trajectory weighing the same.
    """

    in_units_of_scale = False
    needs_contrast = True
    needs_layout = True

    class Config(Weighted):
        """Options of the contrast."""

        coef: float = Field(0.05, gt=0.0, description="alpha, weight of the term in the critic's loss.")
        min_value: float = Field(0.0, description="Values are clamped from below, to the least reward.")
        max_value: float = Field(1.0, description="Values are clamped from above, to the largest reward.")

        @model_validator(mode="after")
        def _range(self) -> Contrast.Config:
            if self.min_value >= self.max_value:
                raise ValueError(f"min_value must be below max_value, got {self.min_value} and {self.max_value}")
            return self

    def prepare(self, view: BatchView, world: Collective) -> tuple[Rows | None, Metrics]:
        """A batch of a single prompt has no other one to be compared with: no contrast then."""
        groups = world.gather(view.batch.group_ids).unique().numel()
        return HasOthers(torch.full_like(view.batch.scores, float(groups > 1))), {}

    def parts(self, view: TokenView) -> dict[str, tuple[float, Tensor]]:
        """None: the loss is of whole trajectories."""
        return {}

    def rows_loss(
        self, output: CriticOutput, batch: TrainBatch, estimates: Estimates, counts: Denominators
    ) -> LossOutput:
        """Less alpha times the mean value of the batch itself."""
        carried = estimates.carried(self, HasOthers)
        if carried is None:
            raise ValueError("contrast needs what prepare found")
        mean, metrics = self._mean(output, carried.flags[:, None], batch, counts, "matched_value")
        return LossOutput(-mean, metrics)

    def contrast_loss(self, output: CriticOutput, batch: TrainBatch, counts: Denominators) -> LossOutput:
        """alpha times the mean value of responses behind other prompts."""
        return LossOutput(*self._mean(output, 1.0, batch, counts, "mismatched_value"))

    def _mean(
        self, output: CriticOutput, weights: Tensor | float, batch: TrainBatch, counts: Denominators, name: str
    ) -> tuple[Tensor, Metrics]:
        """alpha * mean over trajectories of the weighted mean clamped value, and that mean by itself, unweighted."""
        values = output.quantile_values.mean(dim=(-1, -2)).clamp(self.config.min_value, self.config.max_value)
        mean = sequence_mean(weights * values, batch.action_mask, counts.num_trajectories)
        rows = float(batch.action_mask.any(dim=1).sum())
        metrics: Metrics = {}
        if rows:
            metrics[f"critic/{name}"] = Mean(float(sequence_mean(values.detach(), batch.action_mask, 1.0)), rows)
        return self.config.coef * mean, metrics
