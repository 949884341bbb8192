"""Undo the errors of a binary verifier whose error rates are known: backward (rewards) and forward (weights)."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator
from torch import Tensor

from learner.algorithms.corrections.base import RewardCorrection
from learner.algorithms.invariance import ScoreMap
from learner.algorithms.records import CorrectedRewards, OldOutputs
from learner.maths.collective import Collective
from learner.metrics import Last
from rollout.component import StrictModel
from rollout.component.mistakes import UselessReward


def youden_j(false_positive_rate: float, false_negative_rate: float, floor: float = 0.0) -> float:
    """``J = 1 - rho+ - rho-``, at least ``floor``: the variance of a corrected reward grows as 1 / J^2 (our choice).

    Raises:
        ValueError: J is not above 0. A floor would turn a reward that says nothing, or the opposite, into a large one.
    """
    if false_positive_rate + false_negative_rate >= 1.0:
        raise ValueError(f"no J above 0 with the rates {false_positive_rate} and {false_negative_rate}")
    return max(floor, 1.0 - false_positive_rate - false_negative_rate)


def backward_corrected(
    scores: Tensor, false_positive_rate: float, false_negative_rate: float, min_j: float = 0.1
) -> Tensor:
    """``r_hat = (r - rho+) / J`` elementwise (2510.18924; 2510.00915 "backward").

    With rho+ = P(observed 1 | true 0), rho- = P(observed 0 | true 1) and J = 1 - rho+ - rho- > 0, above ``min_j``,
    E[r_hat | true r] = r for both classes. From the papers; the floor of J is our choice. Linear in the score, so a
    z-scored group advantage does not see it; the scale of other advantages grows by 1 / J.
    """
    return (scores - false_positive_rate) / youden_j(false_positive_rate, false_negative_rate, min_j)


def forward_weights(scores: Tensor, false_negative_rate: float) -> Tensor:
    """``w(1) = rho-`` and ``w(0) = rho- - 1``, i.e. ``r - (1 - rho-)``, elementwise (2510.00915 "forward").

    The factor of grad log pi. E[w | true 1] = 0 and E[w | true 0] = -J, so the expected step is J times the clean
    policy gradient with the reward in {0, 1}, and only the false-negative rate has to be known. Scores between 0 and 1
    are mapped linearly (our reading).
    """
    return scores - (1.0 - false_negative_rate)


class ErrorRateOptions(StrictModel):
    """Error rates of a verifier, from a labelled calibration split (order 1500 items for +-0.1 of J)."""

    false_positive_rate: float = Field(ge=0.0, lt=1.0, description="rho+: share of wrong answers that are rewarded.")
    false_negative_rate: float = Field(ge=0.0, lt=1.0, description="rho-: share of right answers that are not.")
    min_j: float = Field(
        0.1, gt=0.0, le=1.0, description="Floor of a J = 1 - rho+ - rho- above 0, which is divided by."
    )
    estimated: bool = Field(
        False,
        description="Replace both by the run's own estimates, from re-checked trajectories, once it has any.",
    )

    @model_validator(mode="after")
    def _informative(self) -> ErrorRateOptions:
        total = self.false_positive_rate + self.false_negative_rate
        if total >= 1.0:
            raise ValueError(
                f"false_positive_rate + false_negative_rate must be below 1, got {total:g}: "
                "such a verifier says nothing of the answer, or the opposite"
            )
        return self


def checked_rates(false_positive_rate: float, false_negative_rate: float) -> tuple[float, float]:
    """Both rates, as a run has estimated them.

    Raises:
        ValueError: a rate is outside [0, 1).
        UserError: J is not above 0. No correction gives such a reward its sign back, so the run has to end.
    """
    if not (0.0 <= false_positive_rate < 1.0 and 0.0 <= false_negative_rate < 1.0):
        raise ValueError(f"rates must be in [0, 1), got {false_positive_rate} and {false_negative_rate}")
    if false_positive_rate + false_negative_rate >= 1.0:
        j = 1.0 - false_positive_rate - false_negative_rate
        raise UselessReward(
            f"reward: of wrong answers {false_positive_rate:.0%} are rewarded and of right ones "
            f"{false_negative_rate:.0%} are not, as estimated from re-checked trajectories, so J = {j:.2f} is not "
            "above 0: this reward says nothing of the answer, or the opposite, and no correction by its rates changes "
            "that. Look at what it pays for (dvpo audit); if so few labels may mislead, raise trust.min_labels"
        )
    return false_positive_rate, false_negative_rate


class NoiseCorrected(RewardCorrection):
    """Backward correction of a noisy binary reward (2510.18924, 2510.00915): :func:`backward_corrected`.

    With ``estimated`` the rates are replaced while training (:meth:`set_rates`, the same on every rank).
    """

    changes_units = True
    reads_verdicts = True

    class Config(ErrorRateOptions):
        """Options of the backward correction."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.rates = (float(config.false_positive_rate), float(config.false_negative_rate))

    @property
    def takes_estimated_rates(self) -> bool:
        """See :class:`RewardCorrection`."""
        return bool(self.config.estimated)

    def set_rates(self, false_positive_rate: float, false_negative_rate: float) -> None:
        """Use these rates from now on; see :func:`checked_rates` for what is refused."""
        self.rates = checked_rates(false_positive_rate, false_negative_rate)

    @property
    def score_map(self) -> ScoreMap:
        """``(r - rho+) / J``."""
        if self.config.estimated:
            return ScoreMap(shifts=True, scales=True)
        return ScoreMap(shifts=self.rates[0] > 0.0, scales=max(self.rates) > 0.0)

    def left_of(self, earlier: ScoreMap) -> ScoreMap:
        """A map of all scores alike commutes with another one."""
        return earlier

    def __call__(self, current: CorrectedRewards, old: OldOutputs, world: Collective) -> CorrectedRewards:
        """See :class:`RewardCorrection`."""
        scores = backward_corrected(current.batch.scores, *self.rates, self.config.min_j)
        return current.with_scores(scores, {"correction/noise_corrected_j": Last(youden_j(*self.rates))})

    def state_dict(self) -> dict[str, Any]:
        """The rates in use."""
        return {"rates": list(self.rates)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the rates in use."""
        self.rates = checked_rates(float(state["rates"][0]), float(state["rates"][1]))


class ForwardCorrected(RewardCorrection):
    """Forward correction of a noisy binary reward (2510.00915): the score becomes :func:`forward_weights`.

    For a method whose advantage is the score itself (type ``reinforce``) this is the paper's update. Under any baseline
    that is subtracted it is a shift and changes nothing.
    """

    changes_units = True
    reads_verdicts = True

    class Config(StrictModel):
        """Options of the forward correction."""

        false_negative_rate: float = Field(ge=0.0, lt=1.0, description="rho-: share of right answers not rewarded.")
        estimated: bool = Field(
            False, description="Replace it by the run's own estimate, from re-checked trajectories, once it has any."
        )

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.false_negative_rate = float(config.false_negative_rate)

    @property
    def takes_estimated_rates(self) -> bool:
        """See :class:`RewardCorrection`."""
        return bool(self.config.estimated)

    def set_rates(self, false_positive_rate: float, false_negative_rate: float) -> None:
        """Use the false-negative rate; the other one is read for J only, see :func:`checked_rates`."""
        _, self.false_negative_rate = checked_rates(false_positive_rate, false_negative_rate)

    @property
    def score_map(self) -> ScoreMap:
        """``r - (1 - rho-)``, with rho- below 1."""
        return ScoreMap(shifts=True)

    def left_of(self, earlier: ScoreMap) -> ScoreMap:
        """A map of all scores alike commutes with another one."""
        return earlier

    def __call__(self, current: CorrectedRewards, old: OldOutputs, world: Collective) -> CorrectedRewards:
        """See :class:`RewardCorrection`."""
        return current.with_scores(forward_weights(current.batch.scores, self.false_negative_rate), {})

    def state_dict(self) -> dict[str, Any]:
        """The rate in use."""
        return {"false_negative_rate": self.false_negative_rate}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the rate in use; a checkpoint of before it could change has none."""
        self.false_negative_rate = float(state.get("false_negative_rate", self.false_negative_rate))
