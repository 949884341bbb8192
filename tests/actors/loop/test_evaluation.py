"""What an evaluation makes of its answers: accuracy, rewards one by one, and what environments report."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from actors.loop.evaluation import Answer, category_name, sampled_metrics, split_metrics
from rollout.sampling.evaluation import SampledEvaluation
from rollout.scoring.record import RewardOutcome, RewardRecord
from rollout.trajectory import FinishReason, Outcome, Prompt, Trajectory


def answer(
    clean: float | None,
    parts: dict[str, float],
    metrics: dict[str, float] | None = None,
    key: str = "",
    level: object = None,
) -> Answer:
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
        prompt_id="p",
        sample_index=0,
        observed=clean,
        clean=clean,
        corrupted=False,
        parts=parts,
        outcome=status,
        answer_key=key,
    )
    extra = {} if level is None else {"level": level}
    prompt = Prompt(prompt_id="p", messages=(), token_ids=(1,), reference=None, task="t", extra=extra)
    return Answer(prompt, trajectory, record)


HALF = {
    "truncated_frac": 0.0,
    "accuracy": 0.5,
    "accuracy_low": pytest.approx(0.012579, abs=1e-6),
    "accuracy_high": pytest.approx(0.987421),
}
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
        assert set(found) == {"accuracy", "truncated_frac"}
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
    assert found == {"reward/exact_match": 0.5, "reward/response_format": 2 / 3, "truncated_frac": 0.0}


def test_numbers_of_conversations_are_averaged_over_those_that_have_them() -> None:
    answers = [
        answer(1.0, {"goal": 1.0}, {"tcr": 1.0, "tcr_health": 1.0}),
        answer(0.0, {"goal": 0.0}, {"tcr": 0.0}),
        answer(None, {}),
    ]
    assert split_metrics(answers) == {**HALF, "tcr": 0.5, "tcr_health": 1.0}


def test_the_share_of_answers_that_were_cut() -> None:
    """Of those that there are: an answer that failed was cut nowhere."""
    whole, other = answer(1.0, {}), answer(0.0, {})
    cut = replace(other, trajectory=replace(other.trajectory, finish_reason=FinishReason.LENGTH))
    gone = replace(other, trajectory=replace(other.trajectory, failure="its environment failed"))
    assert split_metrics([whole, cut, whole, cut, cut, gone])["truncated_frac"] == 0.6


def test_no_answer_that_could_be_scored() -> None:
    assert math.isnan(split_metrics([answer(None, {})])["accuracy"])


def test_samples_of_each_prompt_tell_the_best_and_the_majority() -> None:
    """Two prompts, one with votes right, right, wrong, other; one with wrong, wrong, right, right."""
    first = [answer(1.0, {}, key="r"), answer(1.0, {}, key="r"), answer(0.0, {}, key="w"), answer(0.0, {}, key="o")]
    second = [answer(0.0, {}, key="w"), answer(0.0, {}, key="w"), answer(1.0, {}, key="r"), answer(1.0, {}, key="r")]
    found = sampled_metrics(SampledEvaluation(samples=4, at=(4, 1, 3)), first + second)
    assert {name: found[name] for name in found if not name.endswith(("_low", "_high"))} == {
        "pass_at_1": 0.5,
        "pass_at_3": 1.0,
        "majority_at_3": pytest.approx(((2 * 1 + 2 * 1 / 3) / 4 + 0.5) / 2),  # of the first: two rr., two r.. tie
        "pass_at_4": 1.0,
        "majority_at_4": 0.75,
    }
    assert found["pass_at_1_low"] < 0.5 < found["pass_at_1_high"] and found["pass_at_3_low"] < 1.0


def test_a_prompt_with_too_few_scores_has_no_part_in_a_larger_k() -> None:
    short = [answer(0.0, {}, key="w"), answer(None, {}), answer(None, {})]
    found = sampled_metrics(SampledEvaluation(samples=3), [*[answer(1.0, {}, key="r")] * 3, *short])
    assert (found["pass_at_1"], found["pass_at_3"], found["majority_at_3"]) == (0.5, 1.0, 1.0)
    assert math.isnan(sampled_metrics(SampledEvaluation(samples=3), short)["pass_at_3"])
    graded = sampled_metrics(SampledEvaluation(samples=2), [answer(1.5, {}), answer(-1.0, {})])
    assert graded == {"pass_at_1": 0.25, "pass_at_2": 1.5}  # no interval of what is not from 0 to 1


def test_each_category_has_an_accuracy() -> None:
    answers = [answer(1.0, {}, level=1), answer(0.0, {}, level=1), answer(1.0, {}, level="very hard"), answer(0.5, {})]
    found = split_metrics(answers, "level")
    assert found["accuracy"] == 0.625
    assert (found["category/1"], found["category/very_hard"], found["category/none"]) == (0.5, 1.0, 0.5)
    assert "category/1_low" in found and "category/none_low" not in found
    assert category_name("a/b c") == "a_b_c" and category_name("") == "_"
