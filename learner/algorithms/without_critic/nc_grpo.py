"""Noise-corrected GRPO: rewards freed of the verifier's bias, divided by the spread of clean ones."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, field_validator
from torch import Tensor

from learner.algorithms.corrections.verifier import ErrorRateOptions, backward_corrected, checked_rates, youden_j
from learner.algorithms.without_critic.groups import constant_groups, group_mean
from learner.algorithms.without_critic.grpo import GRPO


def clean_std(
    scores: Tensor,
    group_ids: Tensor,
    false_positive_rate: float,
    false_negative_rate: float,
    p_min: float = 0.05,
    min_j: float = 0.1,
) -> Tensor:
    """``sqrt(p * (1 - p))`` with ``p = clip((mean_g r - rho+) / J, p_min, 1 - p_min)``, [n] (2510.18924, our form).

    The standard deviation that the group's *clean* binary rewards would have, from the observed mean and the rates; the
    observed one would count the flips as well. The group-specific form and p_min are our choice.

    Args:
        scores: [n] observed rewards of the global batch, in {0, 1}.
    """
    corrected = backward_corrected(group_mean(scores, group_ids), false_positive_rate, false_negative_rate, min_j)
    p = corrected.clamp(p_min, 1.0 - p_min)
    return (p * (1.0 - p)).sqrt()


class NoiseCorrectedGRPO(GRPO):
    """Noise-corrected GRPO (2510.18924): ``A_i = (r_hat_i - mean_g r_hat) / sqrt(p * (1 - p))`` for every token.

    r_hat is the backward-corrected reward (``corrections/verifier.py``), p the group's clean success rate
    (:func:`clean_std`). Dividing by the observed deviation instead would cancel the correction: a z-score does not see
    an affine map, so with one global pair of rates plain GRPO is the same with and without it (our derivation). Scores,
    p and advantages are detached. Exactly 0 in a group whose observed scores are all equal.
    """

    reads_verdicts = True

    class Config(GRPO.Config):
        """Options of noise-corrected GRPO."""

        rates: ErrorRateOptions = Field(
            description="Error rates of the verifier: false_positive_rate, false_negative_rate."
        )
        p_min: float = Field(0.05, gt=0.0, lt=0.5, description="p is kept this far from 0 and 1.")

        @field_validator("kl_mode")
        @classmethod
        def _binary_scores(cls, value: str) -> str:
            if value != "loss":
                raise ValueError("must be 'loss': with the KL cost in the score it is no longer the verifier's 0 or 1")
            return value

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.rates = (float(config.rates.false_positive_rate), float(config.rates.false_negative_rate))

    @property
    def takes_estimated_rates(self) -> bool:
        """See :class:`learner.algorithms.base.Algorithm`."""
        return bool(self.config.rates.estimated) or super().takes_estimated_rates

    def set_rates(self, false_positive_rate: float, false_negative_rate: float) -> None:
        """See :class:`learner.algorithms.base.Algorithm`."""
        super().set_rates(false_positive_rate, false_negative_rate)
        if self.config.rates.estimated:
            self.rates = checked_rates(false_positive_rate, false_negative_rate)

    def group_advantages(self, scores: Tensor, group_ids: Tensor) -> Tensor:
        """Advantage of each trajectory of the global batch, [n]."""
        (fpr, fnr), min_j = self.rates, self.config.rates.min_j
        centred = (scores - group_mean(scores, group_ids)) / youden_j(fpr, fnr, min_j)
        advantages = centred / clean_std(scores, group_ids, fpr, fnr, self.config.p_min, min_j)
        return torch.where(constant_groups(scores, group_ids), torch.zeros_like(advantages), advantages)

    def state_dict(self) -> dict[str, Any]:
        """See :class:`learner.algorithms.base.Algorithm`; with the rates in use."""
        return {**super().state_dict(), "rates": list(self.rates)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it; a checkpoint of before the rates could change has none."""
        super().load_state_dict(state)
        positive, negative = state.get("rates", self.rates)
        self.rates = checked_rates(float(positive), float(negative))
