"""Winsorise: clip the observed reward to what the critic thinks possible. Ours; off in every preset of a paper."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from learner.algorithms.corrections.base import RewardCorrection
from learner.algorithms.corrections.clip import clip_scores
from learner.algorithms.corrections.critic_view import predicted_reward, too_few_quantiles
from learner.algorithms.records import CorrectedRewards, OldOutputs
from learner.maths.collective import Collective
from learner.maths.outcomes import outcomes
from learner.maths.quantiles.quantiles import quantile_at
from learner.metrics import Last
from learner.models.spec import CriticConfig
from rollout.component import StrictModel


def reward_range(quantiles: Tensor, low: float, high: float, pad_share: float, pad: float) -> tuple[Tensor, Tensor]:
    """``[q_low - p, q_high + p]`` with ``p = pad_share * (q_high - q_low) + pad``, [batch M] -> two [batch] (ours)."""
    below, above = quantile_at(quantiles, low), quantile_at(quantiles, high)
    reach = pad_share * (above - below) + pad
    return below - reach, above + reach


class Winsorise(RewardCorrection):
    """Clip each observed reward to the old critic's range at the action token that earns it (our choice).

    The range is :func:`reward_range`, of the critic before the update, detached. Nothing is clipped before the critic
    is calibrated: for ``warmup_updates`` batches, and whenever the running share of observed rewards inside
    [q_low - pad, q_high + pad] is more than ``coverage_tolerance`` below ``high - low``. (Too high a coverage only
    means that the range is wide; it stops nothing.) Coverage is that of the rewards as they come in, over all ranks.

    A reward of few values (:func:`learner.maths.outcomes.outcomes`) is left as it is. Each of its values is possible,
    and quantiles of a coin are no bounds: all but the last hundredth of them are 0 where a success has a chance of 1 %.
    """

    needs_critic = True
    compares_with_critic = True

    class Config(StrictModel):
        """Options of winsorising."""

        low: float = Field(0.05, gt=0.0, lt=1.0, description="Level of the critic's lower quantile.")
        high: float = Field(0.95, gt=0.0, lt=1.0, description="Level of the critic's upper quantile.")
        pad_share: float = Field(0.25, ge=0.0, description="Padding on each side, as a share of the range's width.")
        pad: float = Field(0.05, ge=0.0, description="Further padding on each side, in reward units.")
        warmup_updates: int = Field(5, ge=0, description="First updates in which nothing is clipped.")
        coverage_tolerance: float = Field(
            0.1, ge=0.0, le=1.0, description="How far the running coverage may be below high - low."
        )
        coverage_decay: float = Field(0.9, ge=0.0, lt=1.0, description="Decay of the running coverage, per update.")

        @model_validator(mode="after")
        def _ordered(self) -> Winsorise.Config:
            if self.low >= self.high:
                raise ValueError(f"low must be below high, got low={self.low}, high={self.high}")
            return self

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.num_updates = self.num_clipped = self.num_seen = 0
        self.covered = self.weight = 0.0

    def misfit(self, critic: CriticConfig) -> str:
        """See :class:`RewardCorrection`."""
        return too_few_quantiles(critic, min(self.config.low, 1.0 - self.config.high))

    @property
    def coverage(self) -> float:
        """Running coverage, corrected for its start; NaN before the first batch."""
        return self.covered / self.weight if self.weight else float("nan")

    @property
    def calibrated(self) -> bool:
        """Whether rewards are clipped now."""
        c = self.config
        least: float = c.high - c.low - c.coverage_tolerance
        return bool(self.num_updates >= c.warmup_updates) and self.coverage >= least

    def __call__(self, current: CorrectedRewards, old: OldOutputs, world: Collective) -> CorrectedRewards:
        """See :class:`RewardCorrection`."""
        c, scores = self.config, current.batch.scores
        quantiles, earned = predicted_reward(old, current.batch)
        low, high = reward_range(quantiles, c.low, c.high, 0.0, c.pad)
        inside = world.gather(((scores >= low) & (scores <= high)).double()[earned])
        if inside.numel():
            self.covered = c.coverage_decay * self.covered + (1.0 - c.coverage_decay) * float(inside.mean())
            self.weight = c.coverage_decay * self.weight + (1.0 - c.coverage_decay)
        everything = world.gather(scores[earned])
        active = self.calibrated and outcomes(everything, everything.numel()) is None
        self.num_updates += 1
        low, high = reward_range(quantiles, c.low, c.high, c.pad_share, c.pad)
        if not active:
            low, high = torch.full_like(low, -torch.inf), torch.full_like(high, torch.inf)
        low, high = (torch.where(earned, x, scores.to(x)).to(scores) for x in (low, high))
        result = clip_scores(current, low, high, "winsorise")
        self.num_clipped += int(world.gather((result.batch.scores != scores).long()).sum())
        self.num_seen += int(inside.numel())
        running = {
            "correction/winsorise_active": Last(float(active)),
            "correction/winsorise_coverage": Last(self.coverage),
            "correction/winsorise_total": Last(float(self.num_clipped)),
            "correction/winsorise_total_frac": Last(self.num_clipped / max(1, self.num_seen)),
        }
        return result.with_scores(result.batch.scores, running)

    def state_dict(self) -> dict[str, Any]:
        """Running coverage and counts."""
        names = ("num_updates", "num_clipped", "num_seen", "covered", "weight")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore running coverage and counts."""
        for name, value in state.items():
            setattr(self, name, value)
