"""Multiple choice and mathematical expressions."""

from __future__ import annotations

import time
from typing import Any

import pytest

from rollout.component import ComponentSpec, UserError
from rollout.rewards import math_expression
from rollout.rewards.answers.choices import find_choice
from rollout.rewards.base import Abstain, Reward, RewardUnavailable
from rollout.rewards.function import build_reward
from tests.rollout.rewards.cases import case


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("B", "B"),
        (" (B). ", "B"),
        ("**B**", "B"),
        ("Answer: B", "B"),
        ("1 2=B", "B"),
        ("the answer is (C) iron", "C"),
        ("Answer: C) A metal, and B is wrong", "C"),
        ("**Answer:** **D**", "D"),
        ("x=2, so the answer is B because x = 5", "B"),
        ("I get \\boxed{D}.", "D"),
        ("Answer: A\nNo. Answer: C", "C"),
        ("Answer: A\nNo. Answer: unclear", None),
        ("answer: A or B", None),
        ("Answer: (A) or (B)", None),
        ("Answer: A, B", None),
        ("Answer: A/C", None),
        ("Answer: A B C D", None),
        ("The answer is A cat", None),
        ("The answer is A because it shines", "A"),
        ("Answer: Apple", None),
        ("Answer: b", None),
        ("Answer: E", None),
        ("Answer:\nB", "B"),
        ("It must be B", None),
        ("", None),
    ],
)
def test_the_choice_must_be_named_and_be_the_only_one(text: str, choice: str | None) -> None:
    assert find_choice(text, "ABCD") == choice


def test_a_hostile_choice_takes_linear_time() -> None:
    began = time.perf_counter()
    for text in ("answer " * 50_000, "answer: " + "(" * 200_000, "=" * 200_000, "answer: A" + " " * 200_000 + "x"):
        assert find_choice(text, "ABCD") in (None, "A")
    assert time.perf_counter() - began < 5.0


async def test_multiple_choice_scores() -> None:
    options = {"correct": 2.0, "incorrect": -1.0, "no_answer": -2.0}
    reward: Any = build_reward(ComponentSpec(type="multiple_choice", **options), "r")
    texts = ("Answer: B", "Answer: C", "no idea")
    assert [await reward(*case(text, " B ")) for text in texts] == [2.0, -1.0, -2.0]
    for reference in ("E", "BC", ""):
        with pytest.raises(ValueError, match=r"the reference of prompt 'p0' is .* not one of ABCD"):
            await reward(*case("B", reference))
    for letters in ("A", "AAB", "abc", "A B"):
        with pytest.raises(UserError, match=r"r\.letters: must be at least two different letters"):
            build_reward(ComponentSpec(type="multiple_choice", letters=letters), "r")


@pytest.fixture(scope="module")
def math_reward() -> Any:
    """The reward; its process starts with the first comparison."""
    pytest.importorskip("math_verify")
    options = {"correct": 2.0, "incorrect": -1.0, "no_answer": -2.0, "compare_timeout_s": 2.0}
    reward: Reward = build_reward(ComponentSpec(type="math_verify", **options), "r")
    yield reward
    process = reward._process  # type: ignore[attr-defined]
    if process is not None:
        math_expression._end(process)
        assert process.returncode == 0


@pytest.mark.parametrize(
    ("text", "reference", "score"),
    [
        ("so \\boxed{\\frac{1}{2}}", "0.5", 2.0),
        ("so $0.5$", "\\frac{1}{2}", 2.0),
        ("$\\sqrt{8}$", "2\\sqrt{2}", 2.0),
        ("$2$", "2\\sqrt{2}", -1.0),
        ("$(x+1)^2$", "x^2+2x+1", 2.0),
        ("$(x+1)^2$", "$x^2+2x$", -1.0),
        ("It is 1,234.", "1234", 2.0),
        ("It is 3", "4", -1.0),
        ("$\\{1, 2\\}$", "\\{2, 1\\}", 2.0),
        ("no idea", "4", -2.0),
    ],
)
def test_expressions_are_compared_as_mathematics(math_reward: Any, text: str, reference: str, score: float) -> None:
    assert math_reward(*case(text, reference)) == score


@pytest.mark.slow
@pytest.mark.parametrize("text", ["$9^{9^{9^{9}}}$", "$10000000!$"])
def test_an_endless_comparison_is_an_abstention(math_reward: Any, text: str) -> None:
    assert math_reward(*case("$1$", "1")) == 2.0  # started
    began = time.monotonic()
    with pytest.raises(Abstain, match=r"the comparison needs more than 2 s|too large to compare"):
        math_reward(*case(text, "3"))
    assert time.monotonic() - began < 10.0
    assert math_reward(*case("$1$", "1")) == 2.0, "the next one is judged again"


def test_a_reference_that_is_no_expression(math_reward: Any) -> None:
    with pytest.raises(ValueError, match="the reference of prompt 'p0' is not an expression: ''"):
        math_reward(*case("$1$", ""))


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^r: the reward 'math_verify' needs the package math-verify: pip install"):
        build_reward(ComponentSpec(type="math_verify"), "r")


def test_a_process_that_died_is_told_and_forgotten(math_reward: Any) -> None:
    assert math_reward(*case("<answer> </answer>", "1")) == -2.0
    assert math_reward(*case("$1$", "1")) == 2.0  # it runs
    math_reward._process.kill()
    with pytest.raises(RewardUnavailable, match="the process that compares expressions ended with status -9"):
        math_reward(*case("$1$", "1"))
    assert math_reward._process is None, "the next call starts another one"
