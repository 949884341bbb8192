"""Precision: trust a trajectory by how sure the critic is of its reward. Ours; off in every preset of a paper."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from learner.algorithms.corrections.base import RewardCorrection
from learner.algorithms.corrections.critic_view import predicted_reward, too_few_quantiles
from learner.algorithms.invariance import ScoreMap
from learner.algorithms.records import CorrectedRewards, OldOutputs
from learner.maths.collective import Collective, apply_globally
from learner.maths.quantiles.quantiles import spread
from learner.metrics import EffectiveShare, Max, Mean, Metrics
from learner.models.spec import CriticConfig
from rollout.component import StrictModel

_BISECTIONS = 80
_LEAST_VARIANCE = 1e-200
"""So far above 0 that its reciprocal times any bound is finite."""


def bounded_mean_one(values: Tensor, bound: float) -> Tensor:
    """``clamp(c * x, 1 / bound, bound)`` with the c for which the mean is 1, [n] -> [n] in float64 (our choice).

    Args:
        values: [n], > 0 and finite.
        bound: > 1. As 1 lies strictly between the bounds such a c exists, found by bisection in log c.
    """
    wide = values.double()
    if not wide.numel():
        return wide
    low = -torch.log(wide.max() * bound)  # everything at the lower bound
    high = torch.log(bound / wide.min())  # everything at the upper bound
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        above = (wide * middle.exp()).clamp(1.0 / bound, bound).mean() > 1.0
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (wide * ((low + high) / 2).exp()).clamp(1.0 / bound, bound)


class Precision(RewardCorrection):
    """Weigh trajectories by ``1 / (variance the old critic predicts of the reward)``, bounded, mean 1 (our choice).

    The variance is that of the ensemble's quantiles in the state before the last action token. There the answer is
    already known, so what is left is the noise of the reward and what the critic has not learned; earlier, it would
    also hold the policy's own uncertainty, and the weights would shun prompts of middling difficulty, which teach the
    most. Meant for noise that differs between prompts or sources. Weights are over all ranks, detached, and multiply
    those of earlier corrections. ``floor`` keeps a law that is nearly a point from taking all the weight.
    """

    needs_critic = True
    changes_scores = False

    class Config(StrictModel):
        """Options of precision weights."""

        bound: float = Field(4.0, gt=1.0, description="Weights lie between 1 / bound and bound.")
        floor: float = Field(
            0.1, gt=0.0, description="Added to each standard deviation, as a share of their root mean square."
        )
        apply_to: Literal["both", "policy", "critic"] = Field("both", description="Losses that are weighed.")

    def misfit(self, critic: CriticConfig) -> str:
        """See :class:`RewardCorrection`."""
        return too_few_quantiles(critic, 0.5)

    def left_of(self, earlier: ScoreMap) -> ScoreMap:
        """Weights are by variances in proportion to each other, and scores stay."""
        return earlier

    def weights(self, variances: Tensor) -> Tensor:
        """Weights of the trajectories of all ranks, [n], from their predicted variances."""
        extra = (self.config.floor**2 * variances.double().mean()).clamp(min=_LEAST_VARIANCE)
        return bounded_mean_one(1.0 / (variances.double() + extra), self.config.bound).to(variances)

    def __call__(self, current: CorrectedRewards, old: OldOutputs, world: Collective) -> CorrectedRewards:
        """See :class:`RewardCorrection`."""
        quantiles, _ = predicted_reward(old, current.batch)
        weights = apply_globally(self.weights, world, spread(quantiles)).to(current.batch.scores)

        def product(before: Tensor | None) -> Tensor:
            return weights if before is None else before * weights

        where, wide = self.config.apply_to, weights.double()
        metrics: Metrics = {
            "correction/precision_weight_max": Max(float(wide.max()) if wide.numel() else 0.0),
            "correction/precision_std": Mean(float(spread(quantiles).double().sqrt().sum()), float(wide.numel())),
            "correction/precision_ess_frac": EffectiveShare(
                float(wide.sum()), float(wide.square().sum()), float(wide.numel())
            ),
        }
        return replace(
            current,
            policy_weights=current.policy_weights if where == "critic" else product(current.policy_weights),
            critic_weights=current.critic_weights if where == "policy" else product(current.critic_weights),
            metrics={**current.metrics, **metrics},
        )
