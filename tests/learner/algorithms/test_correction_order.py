"""Corrections that would read something else than they are made for are refused, with the order that is right."""

from __future__ import annotations

from typing import Any

import pytest

from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.corrections.base import RewardCorrection
from learner.algorithms.records import CorrectedRewards, OldOutputs
from learner.maths.collective import Collective
from rollout.component import UserError

NOISE = {"type": "noise_corrected", "false_positive_rate": 0.1, "false_negative_rate": 0.1}
FORWARD = {"type": "forward_corrected", "false_negative_rate": 0.1}


class Stretched(RewardCorrection):
    """Twice the reward, and says so."""

    changes_units = True

    def __call__(self, current: CorrectedRewards, old: OldOutputs, world: Collective) -> CorrectedRewards:
        """See :class:`RewardCorrection`."""
        return current.with_scores(2.0 * current.batch.scores, {})


STRETCHED = f"{__name__}:Stretched"


@pytest.mark.parametrize(
    ("corrections", "message"),
    [
        (["winsorise", "normalise"], "write [normalise, winsorise]"),
        (["winsorise", NOISE], "write [noise_corrected, winsorise]"),
        (["winsorise", FORWARD], "write [forward_corrected, winsorise]"),
        (["winsorise", STRETCHED], f"write [{STRETCHED}, winsorise]"),
        (["winsorise", "mad_clip", "normalise"], "write [normalise, winsorise]"),
        (["normalise", NOISE], "write [noise_corrected, normalise]"),
        (["percentile_clip", NOISE], "write [noise_corrected, percentile_clip]"),
        (["mad_clip", FORWARD], "write [forward_corrected, mad_clip]"),
        ([NOISE, NOISE], "write one of noise_corrected and noise_corrected"),
        (["normalise", "evidence"], "write [evidence, normalise]"),
        (["winsorise", "evidence"], "write [evidence, winsorise]"),
        ([NOISE, "evidence"], "write one of noise_corrected and evidence"),
        ([FORWARD, NOISE], "write one of forward_corrected and noise_corrected"),
    ],
    ids=str,
)
def test_a_wrong_order_is_refused_with_the_right_one(corrections: list[Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        build_algorithm("dvpo", {"reward_correction": corrections})
    assert message in str(caught.value)
    assert str(caught.value).startswith("algorithm.reward_correction.")


@pytest.mark.parametrize(
    "corrections",
    [
        ["normalise", "winsorise"],
        [NOISE, "normalise", "mad_clip", "winsorise", "precision"],
        ["winsorise", "percentile_clip", "precision"],
        ["precision", NOISE, "winsorise"],
        [STRETCHED, "winsorise"],
    ],
    ids=str,
)
def test_a_right_order_is_taken(corrections: list[Any]) -> None:
    assert len(build_algorithm("dvpo", {"reward_correction": corrections}).corrections) == len(corrections)


@pytest.mark.parametrize("correction", ["normalise", "percentile_clip", "evidence", NOISE, FORWARD, STRETCHED], ids=str)
def test_nc_grpo_takes_verdicts_as_they_are(correction: Any) -> None:
    with pytest.raises(UserError, match=r"NoiseCorrectedGRPO reads a verifier's own 0 or 1, and .* would change"):
        build_algorithm("nc-grpo", {"reward_correction": [correction]})


def test_every_correction_is_looked_at_not_only_the_first() -> None:
    for first in ("mad_clip", NOISE):
        with pytest.raises(UserError, match="Winsorise needs a critic, and GRPO has none"):
            build_algorithm("grpo", {"reward_correction": [first, "winsorise"]})


def test_only_a_correction_that_wants_estimated_rates_is_given_some() -> None:
    assert not build_algorithm("grpo", {"reward_correction": [NOISE, "mad_clip"]}).takes_estimated_rates
    estimating = {**NOISE, "estimated": True}
    assert build_algorithm("grpo", {"reward_correction": [estimating, "mad_clip"]}).takes_estimated_rates
