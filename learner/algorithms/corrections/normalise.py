"""Normalise rewards by their running mean and standard deviation, then clip them (PPO-max)."""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field

from learner.algorithms.corrections.base import RewardCorrection
from learner.algorithms.invariance import ScoreMap
from learner.algorithms.records import CorrectedRewards, OldOutputs
from learner.maths.collective import Collective
from learner.metrics import Last, Mean
from rollout.component import StrictModel


class Normalise(RewardCorrection):
    """``r <- clip((r - mean) / std, -d, d)`` with statistics of all rewards so far (2307.04964).

    The formula is from the paper. Our choices: the statistics include the batch itself, every reward seen since the
    start weighs the same unless ``decay`` is set, and while all rewards are equal the result is 0. Detached: rewards
    carry no gradient. Statistics are over all ranks.
    """

    changes_units = True

    class Config(StrictModel):
        """Options of the running normalisation."""

        clip: float | None = Field(5.0, gt=0.0, description="d, bound of the normalised reward; null for none.")
        decay: float = Field(
            1.0, gt=0.0, le=1.0, description="Factor of what was seen before, per batch; 1 forgets nothing."
        )
        min_std: float = Field(1e-6, gt=0.0, description="Least standard deviation divided by, in reward units.")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.count = self.mean = self.squares = 0.0

    @property
    def score_map(self) -> ScoreMap | None:
        """Without its clip, ``(r - mean) / std``; both settle as rewards are seen."""
        return ScoreMap(shifts=True, scales=True) if self.config.clip is None else None

    def left_of(self, earlier: ScoreMap) -> ScoreMap:
        """Nothing: mean and deviation are those of the mapped scores."""
        return ScoreMap()

    @property
    def std(self) -> float:
        """Standard deviation of the rewards so far, divided by their number; at least ``min_std``."""
        least: float = self.config.min_std
        return max(least, math.sqrt(self.squares / self.count) if self.count else 0.0)

    def __call__(self, current: CorrectedRewards, old: OldOutputs, world: Collective) -> CorrectedRewards:
        """See :class:`RewardCorrection`."""
        scores = current.batch.scores
        everything = world.gather(scores).double()
        if everything.numel():
            mean = float(everything.mean())
            self._merge(float(everything.numel()), mean, float((everything - mean).square().sum()))
        normalised = (scores.double() - self.mean) / self.std
        clip = self.config.clip if self.config.clip is not None else math.inf
        clipped = normalised.clamp(-clip, clip)
        return current.with_scores(
            clipped,
            {
                "correction/normalise_clip_frac": Mean(float((clipped != normalised).sum()), float(scores.numel())),
                "correction/normalise_mean": Last(self.mean),
                "correction/normalise_std": Last(self.std),
            },
        )

    def _merge(self, count: float, mean: float, squares: float) -> None:
        """Pool the moments of a batch with those kept (Chan et al. 1983); stable for means far from 0."""
        kept = self.config.decay * self.count
        total, gap = kept + count, mean - self.mean
        self.squares = self.config.decay * self.squares + squares + gap * gap * kept * count / total
        self.mean += gap * count / total
        self.count = total

    def state_dict(self) -> dict[str, Any]:
        """The three moments."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the three moments."""
        self.count, self.mean, self.squares = (float(state[name]) for name in ("count", "mean", "squares"))
