"""What an evaluation makes of its answers: accuracy, rewards one by one, and what environments report."""

from __future__ import annotations

import math

import pytest

from actors.loop.evaluation import Answer, split_metrics
from rollout.scoring.record import RewardOutcome, RewardRecord
from rollout.trajectory import FinishReason, Outcome, Prompt, Trajectory


def answer(clean: float | None, parts: dict[str, float], metrics: dict[str, float] | None = None) -> Answer:
    outcome = None if metrics is None else Outcome(metrics)
    trajectory = Trajectory(
        prompt_id="p",
        sample_index=0,
        token_ids=(1,),
        action_mask=(False,),
        rollout_logprobs=(0.0,),
        response_text="",
        finish_reason=FinishReason.STOP,
        policy_version_min=0,
        policy_version_max=0,
        outcome=outcome,
    )
    status = RewardOutcome.ERROR if clean is None else RewardOutcome.SCORED
    record = RewardRecord(
        prompt_id="p", sample_index=0, observed=clean, clean=clean, corrupted=False, parts=parts, outcome=status
    )
    return Answer(Prompt(prompt_id="p", messages=(), token_ids=(1,), reference=None, task="t"), trajectory, record)


HALF = {"accuracy": 0.5, "accuracy_low": pytest.approx(0.012579, abs=1e-6), "accuracy_high": pytest.approx(0.987421)}
"""One of two; by Clopper and Pearson the ends are 1 - sqrt(1 - .025) and sqrt(1 - .025)."""


def test_one_reward_is_the_accuracy_with_its_interval_and_nothing_else() -> None:
    assert split_metrics([answer(1.0, {"exact_match": 1.0}), answer(0.0, {"exact_match": 0.0})]) == HALF


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([1.0] * 10, (0.691503, 1.0)),  # 0.025 ** (1 / 10)
        ([0.0] * 10, (0.0, 0.308497)),
        ([1.0] * 3 + [0.0] * 7, (0.066740, 0.652453)),  # scipy.stats.binomtest(3, 10).proportion_ci()
        ([1.0] * 3 + [None], (0.292402, 1.0)),  # what has no score is no observation
        ([1.0, 0.5], None),
        ([0.2, 0.2], None),
        ([None], None),
    ],
)
def test_the_interval_of_an_accuracy(scores: list[float | None], expected: tuple[float, float] | None) -> None:
    found = split_metrics([answer(score, {}) for score in scores])
    if expected is None:
        assert set(found) == {"accuracy"}
    else:
        assert (found["accuracy_low"], found["accuracy_high"]) == pytest.approx(expected, abs=1e-6)


def test_several_rewards_are_reported_one_by_one_before_their_weights() -> None:
    answers = [
        answer(1.1, {"exact_match": 1.0, "response_format": 1.0}),
        answer(0.1, {"exact_match": 0.0, "response_format": 1.0}),
        answer(None, {"response_format": 0.0}),
    ]
    found = split_metrics(answers)
    assert found.pop("accuracy") == (1.1 + 0.1) / 2
    assert found == {"reward/exact_match": 0.5, "reward/response_format": 2 / 3}


def test_numbers_of_conversations_are_averaged_over_those_that_have_them() -> None:
    answers = [
        answer(1.0, {"goal": 1.0}, {"tcr": 1.0, "tcr_health": 1.0}),
        answer(0.0, {"goal": 0.0}, {"tcr": 0.0}),
        answer(None, {}),
    ]
    assert split_metrics(answers) == {**HALF, "tcr": 0.5, "tcr_health": 1.0}


def test_no_answer_that_could_be_scored() -> None:
    assert math.isnan(split_metrics([answer(None, {})])["accuracy"])
