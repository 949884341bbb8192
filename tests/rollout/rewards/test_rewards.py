"""Rewards: what counts as the answer, as equal, and as well-formed."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.component import ComponentSpec, UserError, build
from rollout.rewards import REWARDS
from rollout.rewards.answers.numbers import last_number, parse_number
from rollout.rewards.base import Reward
from rollout.rewards.exact_match import FINAL_ANSWER, answer_equals, find_answer
from tests.rollout.rewards.cases import case


async def score(text: str, reference: str | None, cut: bool = False, **spec: Any) -> float:
    reward: Reward = build(ComponentSpec(**spec), REWARDS, Reward, "reward")
    return await reward(*case(text, reference, cut=cut))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("7 2 4=8", "8"),
        ("=8", "8"),
        ("1=2=3", "3"),
        ("a=1\nb= 22 \nthe end", "22"),
        ("so the Answer: 1,234 ", "1,234"),
        ("answer: x=5", "5"),
        ("=", ""),
        ("8", None),
        ("", None),
    ],
)
def test_the_final_answer_is_what_follows_the_last_marker(text: str, answer: str | None) -> None:
    assert find_answer(text, FINAL_ANSWER) == answer


def test_a_hostile_response_takes_linear_time() -> None:
    started = time.perf_counter()
    for text in ("=" + " " * 100_000 + "\\", "=" * 100_000, "1" * 100_000, "1 " * 50_000 + "/" * 10_000):
        find_answer(text, FINAL_ANSWER)
        parse_number(text)
    last_number("9" * 100_000)
    assert time.perf_counter() - started < 5.0


@pytest.mark.parametrize(
    ("text", "reference", "options", "expected"),
    [
        ("3+4=7", " 7 ", {}, 1.0),
        ("3+4=07", "7", {}, 0.0),
        ("seven", "7", {}, 0.0),
        ("seven", "7", {"no_answer": -0.5}, -0.5),
        ("=8", "7", {"incorrect": -1.0, "no_answer": -0.5}, -1.0),
        ("=7", "7", {"correct": 2.0}, 2.0),
        ("=Yes", "yes", {}, 0.0),
        ("=Yes", "yes", {"ignore_case": True}, 1.0),
        ("<a>1</a> <a>2</a>", "2", {"answer_pattern": "<a>(.*?)</a>"}, 1.0),
        ("line\n7", "7", {"answer_pattern": "^([0-9]+)$"}, 1.0),
    ],
)
async def test_exact_match(text: str, reference: str, options: dict[str, Any], expected: float) -> None:
    assert await score(text, reference, type="exact_match", **options) == expected
    assert answer_equals("=7", "7 ") and not answer_equals("7", "7")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", Fraction(12)),
        (" -1.50 ", Fraction(-3, 2)),
        ("+.5", Fraction(1, 2)),
        ("1,234,567.5", Fraction(2469135, 2)),
        ("3/4", Fraction(3, 4)),
        ("-3 / 4.", Fraction(-3, 4)),
        ("2e3", Fraction(2000)),
        ("1.5E-2", Fraction(3, 200)),
        ("12%", Fraction(12, 100)),
        ("$1,000", Fraction(1000)),
        ("-$5", Fraction(-5)),
        ("\u22127", Fraction(-7)),
        ("1,23", None),
        ("1/0", None),
        ("12 apples", None),
        ("1 2", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("9" * 5000, None),
    ],
)
def test_parse_number(text: str, value: Fraction | None) -> None:
    assert parse_number(text) == value


@given(st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-1_000_000_000, max_value=1_000_000_000))
def test_parse_number_reads_what_python_writes(number: Any) -> None:
    assert parse_number(f"{number:f}") == parse_number(f"{number:,f}") == Fraction(number)


@pytest.mark.parametrize(
    ("text", "reference", "options", "expected"),
    [
        ("=0.50", "1/2", {}, 1.0),
        ("=0.1", ".1", {}, 1.0),
        ("=3.14", "3.14159", {}, 0.0),
        ("=3.14", "3.14159", {"abs_tol": 0.01}, 1.0),
        ("=101", "100", {"rel_tol": 0.01}, 1.0),
        ("=102", "100", {"rel_tol": 0.01}, 0.0),
        ("=-101", "-100", {"rel_tol": 0.01}, 1.0),
        ("=many", "3", {"no_answer": -0.25, "incorrect": -1.0}, -0.25),
        ("take 4, leaves 1,200 in all.", "1200", {"source": "last_number"}, 1.0),
        ("none", "1", {"source": "last_number", "no_answer": -0.25}, -0.25),
    ],
)
async def test_numeric(text: str, reference: str, options: dict[str, Any], expected: float) -> None:
    assert await score(text, reference, type="numeric", **options) == expected


async def test_a_reference_that_cannot_be_used_is_an_error_not_a_zero() -> None:
    for kind in ("exact_match", "numeric"):
        with pytest.raises(ValueError, match="prompt 'p0' has no reference answer"):
            await score("=1", None, type=kind)
    with pytest.raises(ValueError, match="the reference of prompt 'p0' is not a number: 'three'"):
        await score("=3", "three", type="numeric")


async def test_response_format() -> None:
    steps = {"type": "response_format", "pattern": "[0-9 ]*=[0-9]"}
    assert await score("7 2 4=8", None, **steps) == 1.0
    assert await score("7 2 4=8 or so", None, **steps) == 0.0
    assert await score("7 2 4=8", None, cut=True, **steps) == 0.0
    assert await score("7 2 4=8", None, cut=True, require_stop=False, **steps) == 1.0
    assert await score("no", None, matched=0.5, unmatched=-0.5, **steps) == -0.5
    assert await score("a\nb", None, type="response_format", pattern="a.b") == 1.0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"type": "exact_match", "answer_pattern": "=("}, "r.answer_pattern: not a regular expression: missing )"),
        (
            {"type": "numeric", "answer_pattern": "=.*"},
            "r.answer_pattern: must have exactly one group, the answer; has 0",
        ),
        ({"type": "response_format", "pattern": "["}, "r.pattern: not a regular expression: unterminated"),
        ({"type": "response_format"}, "r.pattern: required but not given"),
        ({"type": "exact_macth"}, "r.type: unknown name 'exact_macth'; did you mean 'exact_match'?"),
        ({"type": "numeric", "abs_tol": -1.0}, "r.abs_tol: must be greater than or equal to 0 (got -1.0)"),
        ({"type": "numeric", "tol": 1.0}, "r.tol: unknown key"),
    ],
)
def test_bad_options_are_told_in_words(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        build(ComponentSpec(**spec), REWARDS, Reward, "r")
    assert message in str(caught.value)
