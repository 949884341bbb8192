"""Responses that are too long: leave those that were cut out of the loss, and charge for length before the limit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from learner.algorithms.corrections.base import RewardCorrection
from learner.algorithms.invariance import ScoreMap
from learner.algorithms.records import CorrectedRewards, OldOutputs
from learner.maths.collective import Collective
from learner.metrics import Mean
from rollout.component import StrictModel


def overlong_penalty(lengths: Tensor, max_tokens: int, buffer_tokens: int) -> Tensor:
    """DAPO's soft punishment (2503.14476 Eq 13), [n] in [-1, 0], from numbers of sampled tokens, [n].

    0 up to ``max - buffer`` tokens, ``(max - buffer - |y|) / buffer`` up to ``max``, and -1 beyond.
    """
    return ((max_tokens - buffer_tokens - lengths.double()) / buffer_tokens).clamp(-1.0, 0.0)


class SoftOverlong(RewardCorrection):
    """DAPO's soft over-long punishment (2503.14476 Eq 13): a penalty that grows over the last tokens before a limit.

    ``r + weight * penalty``, see :func:`overlong_penalty`; the paper's rewards are -1 and 1 and its weight is 1. It
    counts the tokens that the policy sampled, of all turns.
    """

    class Config(StrictModel):
        """Options of the over-long penalty."""

        max_tokens: int = Field(ge=1, description="Sampled tokens from which on all of the penalty is due.")
        buffer_tokens: int = Field(ge=1, description="The penalty grows over so many tokens before max_tokens.")
        weight: float = Field(1.0, gt=0.0, description="The whole penalty, in units of the reward.")

        @model_validator(mode="after")
        def _buffer_fits(self) -> SoftOverlong.Config:
            if self.buffer_tokens > self.max_tokens:
                raise ValueError(
                    f"buffer_tokens must not exceed max_tokens, got {self.buffer_tokens} and {self.max_tokens}"
                )
            return self

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.acts_beyond_tokens = config.max_tokens - config.buffer_tokens

    def __call__(self, current: CorrectedRewards, old: OldOutputs, world: Collective) -> CorrectedRewards:
        """See :class:`RewardCorrection`."""
        batch, c = current.batch, self.config
        penalty = overlong_penalty(batch.action_mask.sum(dim=1), c.max_tokens, c.buffer_tokens).to(batch.scores)
        count = float(penalty.numel())
        return current.with_scores(
            batch.scores + c.weight * penalty,
            {
                "correction/soft_overlong_frac": Mean(float((penalty < 0.0).sum()), count),
                "correction/soft_overlong_change": Mean(float(-c.weight * penalty.double().sum()), count),
            },
        )


class OverlongFilter(RewardCorrection):
    """DAPO's over-long filter (2503.14476, 3.4): responses that were cut at their limit are not learned from.

    A weight of 0: such a reward says where the limit is, not how good the response would have been. They still count
    in the mean of their group, as in the paper, and in the loss's denominators (our choice: one batch's loss stays in
    proportion). The paper masks the policy loss; that the critic's is masked too is our choice.
    """

    changes_scores = False

    class Config(StrictModel):
        """Options of the over-long filter."""

        apply_to: Literal["both", "policy", "critic"] = Field("both", description="Losses that leave them out.")

    def left_of(self, earlier: ScoreMap) -> ScoreMap:
        """Scores stay."""
        return earlier

    def __call__(self, current: CorrectedRewards, old: OldOutputs, world: Collective) -> CorrectedRewards:
        """See :class:`RewardCorrection`."""
        cut = current.batch.truncated
        kept = torch.where(cut, 0.0, 1.0).to(current.batch.scores)

        def product(before: Tensor | None) -> Tensor:
            return kept if before is None else before * kept

        where = self.config.apply_to
        return replace(
            current,
            policy_weights=current.policy_weights if where == "critic" else product(current.policy_weights),
            critic_weights=current.critic_weights if where == "policy" else product(current.critic_weights),
            metrics={**current.metrics, "correction/overlong_filter_frac": Mean(float(cut.sum()), float(cut.numel()))},
        )
