"""Thoughts: what follows the last one is said, for every grader, for votes, and for noise that knows answers."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from rollout.component import ComponentSpec, UserError
from rollout.config import PseudoLabelConfig, RewardConfig
from rollout.noise.votes import final_answer
from rollout.rewards.answers.thinking import USUAL_MARKS, ThinkingConfig, spoken
from rollout.rewards.function import build_reward
from rollout.scoring.service import RewardService
from tests.rollout.rewards.cases import case


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("= 8", "= 8"),
        ("<think>= 7</think>= 8", "= 8"),
        ("= 7</think>= 8", "= 8"),
        ("<think>a</think>b<think>c</think>d", "d"),
        ("<think>a<think>b</think>c</think>d", "d"),
        ("<THINK>a</Think>b", "b"),
        ("<think>a</thinking>b", "b"),
        ("<think>a</think>", ""),
        ("<think>a", None),
        ("= 8 <think>a", None),
        ("<think>a</think>b<think>c", None),
        ("", ""),
    ],
)
def test_what_follows_the_last_thought_is_said(text: str, said: str | None) -> None:
    assert spoken(text, ThinkingConfig()) == said


@pytest.mark.parametrize(("opening", "closing"), USUAL_MARKS)
def test_the_usual_marks(opening: str, closing: str) -> None:
    assert spoken(f"{opening}= 7{closing}= 8", ThinkingConfig()) == "= 8"
    if opening:
        assert spoken(f"{opening}= 7", ThinkingConfig()) is None


def test_marks_are_an_option() -> None:
    own = ThinkingConfig(marks=(("((", "))"),))
    assert spoken("((a))b", own) == "b"
    assert spoken("<think>a</think>b", own) == "<think>a</think>b"
    assert spoken("<think>a", ThinkingConfig(marks=())) == "<think>a"
    opened = ThinkingConfig(prompt_opens=True)
    assert spoken("a", opened) is None, "the prompt has opened it"
    assert spoken("a</think>b", opened) == "b"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"marks": [["<a>", ""]]}, "r.thinking.marks: a pair needs a closing mark"),
        ({"marks": [["<a>", "<A>"]]}, "r.thinking.marks: a pair needs a closing mark other than the opening one"),
        ({"marks": [["<a>"]]}, "r.thinking.marks.0"),
        ({"marks": [], "prompt_opens": True}, "r.thinking: prompt_opens has no effect without marks"),
        ({"mark": []}, "r.thinking.mark: unknown key; did you mean 'marks'?"),
    ],
)
def test_marks_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        build_reward(ComponentSpec(type="exact_match", thinking=options), "r")
    assert message in str(caught.value)


GRADERS: dict[str, dict[str, Any]] = {
    "exact_match": {"type": "exact_match"},
    "numeric": {"type": "numeric"},
    "last_number": {"type": "numeric", "source": "last_number"},
    "multiple_choice": {"type": "multiple_choice", "letters": "XYZ"},
    "math_verify": {"type": "math_verify"},
    "response_format": {"type": "response_format", "pattern": "Answer: (8|Z)"},
}


@pytest.mark.parametrize("grader", GRADERS)
async def test_no_grader_reads_a_thought(grader: str) -> None:
    if grader == "math_verify":
        pytest.importorskip("math_verify")
    reward = build_reward(ComponentSpec(**GRADERS[grader]), "r")
    right, other = ("Z", "Y") if grader == "multiple_choice" else ("8", "7")
    try:
        for text, expected in (
            (f"<think>Answer: {other}</think>Answer: {right}", 1.0),
            (f"<think>Answer: {right}</think>Answer: {other}", 0.0),
            (f"<think>Answer: {right}", 0.0),
            (f"[THINK]Answer: {other}[/THINK]Answer: {right}", 1.0),
            (f"Answer: {other}</thinking>Answer: {right}", 1.0),
        ):
            score = reward(*case(text, right))
            assert (await score if inspect.isawaitable(score) else score) == expected, text
    finally:
        await reward.close()


async def test_a_thought_casts_no_vote() -> None:
    service = RewardService(RewardConfig(pseudo_labels=PseudoLabelConfig()), run_seed=0)
    texts = ("<think>=7</think>=8", "<think>=7", "=7</think>nothing", "=7")
    answers = [(await service.score(*case(text, None))).final_answer for text in texts]
    assert answers == ["8", None, None, "7"]
    own = PseudoLabelConfig(thinking=ThinkingConfig(marks=(("((", "))"),)))
    service = RewardService(RewardConfig(pseudo_labels=own), run_seed=0)
    assert (await service.score(*case("((=7))=8", None))).final_answer == "8"


def test_noise_that_remembers_answers_knows_what_was_said() -> None:
    assert final_answer("<think>= 7</think>Answer: 8.0") == final_answer("= 8") == "8"


async def test_a_pattern_that_names_the_marks_is_for_the_whole_response() -> None:
    pattern = "<think>.*</think>\\s*<answer>.*</answer>"
    reward: Any = build_reward(ComponentSpec(type="response_format", pattern=pattern), "r")
    assert await reward(*case("<think>a</think>\n<answer>b</answer>", "8")) == 1.0
    assert await reward(*case("<answer>b</answer>", "8")) == 0.0
