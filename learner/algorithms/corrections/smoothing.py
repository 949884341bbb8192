"""Label smoothing of verdicts: the answer to label noise that classification knows, and that does nothing here."""

from __future__ import annotations

from pydantic import Field

from learner.algorithms.corrections.base import RewardCorrection
from learner.algorithms.invariance import ScoreMap
from learner.algorithms.records import CorrectedRewards, OldOutputs
from learner.maths.collective import Collective
from learner.metrics import Mean
from rollout.component import StrictModel


class LabelSmoothing(RewardCorrection):
    """``(1 - epsilon) * r + epsilon / 2`` (1512.00567, 7, for two classes).

    One map for all rewards: whatever subtracts a mean and divides by a spread, or by the gradient's size, takes it out
    again, and ``dvpo check`` says so. It is here to show that, and for methods of which that is not true.
    """

    reads_verdicts = True

    class Config(StrictModel):
        """Options of label smoothing."""

        epsilon: float = Field(0.1, gt=0.0, lt=1.0, description="Share of each label that is spread over both classes.")

    @property
    def score_map(self) -> ScoreMap:
        """See :class:`RewardCorrection`."""
        return ScoreMap(shifts=True, scales=True)

    def left_of(self, earlier: ScoreMap) -> ScoreMap:
        """A map of all scores alike commutes with another one."""
        return earlier

    def __call__(self, current: CorrectedRewards, old: OldOutputs, world: Collective) -> CorrectedRewards:
        """See :class:`RewardCorrection`."""
        scores, epsilon = current.batch.scores, self.config.epsilon
        smoothed = (1.0 - epsilon) * scores + epsilon / 2
        count = float(scores.numel())
        return current.with_scores(
            smoothed,
            {
                "correction/label_smoothing_frac": Mean(float((smoothed != scores).sum()), count),
                "correction/label_smoothing_change": Mean(float((smoothed - scores).double().abs().sum()), count),
            },
        )
