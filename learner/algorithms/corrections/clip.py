"""Clip outlying rewards to a range that the batch itself gives. Ours; off in every preset of a paper."""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Tensor

from learner.algorithms.corrections.base import RewardCorrection
from learner.algorithms.invariance import ScoreMap
from learner.algorithms.records import CorrectedRewards, OldOutputs
from learner.masking import MAD_TO_STD
from learner.maths.collective import Collective
from learner.maths.outcomes import outcomes
from learner.metrics import Last, Mean
from rollout.component import StrictModel


def clip_scores(current: CorrectedRewards, low: Tensor, high: Tensor, name: str) -> CorrectedRewards:
    """Clip every score to [low, high] (scalars or [batch]) and report how many were clipped and by how much."""
    scores = current.batch.scores
    clipped = torch.minimum(torch.maximum(scores, low), high)
    moved = (clipped != scores).double()
    count = float(scores.numel())
    return current.with_scores(
        clipped,
        {
            f"correction/{name}_frac": Mean(float(moved.sum()), count),
            f"correction/{name}_change": Mean(float((clipped - scores).double().abs().sum()), count),
        },
    )


class PercentileClip(RewardCorrection):
    """Clip to percentiles of the batch's observed rewards, over all ranks (our choice).

    The range is that of the empirical quantiles at ``low`` and ``high``, linearly interpolated. Under heavy-tailed
    noise it removes most of the harm. A reward of few values (:func:`learner.maths.outcomes.outcomes`) is left as it
    is: a success that is rarer than 1 - ``high`` is what has to be learned, and no outlier.
    """

    class Config(StrictModel):
        """Options of the percentile clip."""

        low: float = Field(0.05, ge=0.0, le=1.0, description="Level of the lower bound, as a share of the batch.")
        high: float = Field(0.95, ge=0.0, le=1.0, description="Level of the upper bound, as a share of the batch.")

        @model_validator(mode="after")
        def _ordered(self) -> PercentileClip.Config:
            if self.low >= self.high:
                raise ValueError(f"low must be below high, got low={self.low}, high={self.high}")
            return self

    @property
    def score_map(self) -> ScoreMap | None:
        """The percentiles 0 and 100 are no bounds."""
        return ScoreMap() if (self.config.low, self.config.high) == (0.0, 1.0) else None

    def left_of(self, earlier: ScoreMap) -> ScoreMap:
        """The bounds are the batch's own and move with its scores."""
        return earlier

    def __call__(self, current: CorrectedRewards, old: OldOutputs, world: Collective) -> CorrectedRewards:
        """See :class:`RewardCorrection`."""
        everything = world.gather(current.batch.scores).double().sort().values
        if not everything.numel():
            return current
        low, high = (_sorted_quantile(everything, p) for p in (self.config.low, self.config.high))
        if outcomes(everything, everything.numel()) is not None:
            low, high = everything[0], everything[-1]
        result = clip_scores(current, low.to(current.batch.scores), high.to(current.batch.scores), "percentile_clip")
        bounds = {"correction/clip_low": Last(float(low)), "correction/clip_high": Last(float(high))}
        return result.with_scores(result.batch.scores, bounds)


class MadClip(RewardCorrection):
    """Clip to median +- ``width`` robust standard deviations (1.4826 * MAD) of the batch's rewards (our choice).

    A median absolute deviation of 0 (more than half of the rewards are equal) says nothing of the scale, so the batch
    is then left as it is, and so is a reward of few values (:func:`learner.maths.outcomes.outcomes`).
    """

    class Config(StrictModel):
        """Options of the MAD clip."""

        width: float = Field(3.0, gt=0.0, description="Half width of the range in robust standard deviations.")

    def left_of(self, earlier: ScoreMap) -> ScoreMap:
        """The bounds are the batch's own and move with its scores."""
        return earlier

    def __call__(self, current: CorrectedRewards, old: OldOutputs, world: Collective) -> CorrectedRewards:
        """See :class:`RewardCorrection`."""
        everything = world.gather(current.batch.scores).double().sort().values
        if not everything.numel():
            return current
        center = _sorted_quantile(everything, 0.5)
        spread = MAD_TO_STD * _sorted_quantile((everything - center).abs().sort().values, 0.5)
        if float(spread) == 0.0 or outcomes(everything, everything.numel()) is not None:
            spread = torch.full_like(spread, float("inf"))
        reach = self.config.width * spread
        like = current.batch.scores
        return clip_scores(current, (center - reach).to(like), (center + reach).to(like), "mad_clip")


def _sorted_quantile(ordered: Tensor, level: float) -> Tensor:
    """Empirical quantile of ascending [n] values, linear between order statistics at level * (n - 1)."""
    position = level * (ordered.numel() - 1)
    low = int(position)
    high = min(low + 1, ordered.numel() - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])
