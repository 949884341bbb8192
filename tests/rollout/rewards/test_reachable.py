"""Whether a pattern can find an answer: against texts that are searched, for many patterns and answers."""

from __future__ import annotations

from itertools import product

import pytest

from rollout.component import ComponentSpec
from rollout.rewards.answers.reachable import can_find
from rollout.rewards.exact_match import FINAL_ANSWER, find_answer
from rollout.rewards.function import build_reward
from rollout.trajectory import Prompt

BOXED = r"\\boxed\{(.*?)\}"
GREEDY = r"\\boxed\{(.*)\}"


@pytest.mark.parametrize(
    ("pattern", "answer", "expected"),
    [
        (FINAL_ANSWER, "7", True),
        (FINAL_ANSWER, "two words", True),
        (FINAL_ANSWER, "", True),
        (FINAL_ANSWER, "x=7", False),
        (FINAL_ANSWER, "16 - 3 = 13\n#### 13", False),
        (FINAL_ANSWER, "one\ntwo", False),
        (BOXED, "7", True),
        (BOXED, r"\frac{1}{2}", False),
        (GREEDY, r"\frac{1}{2}", True),
        (r"####\s*(.*)$", "13", True),
        (r"#### (\d+)$", "13", True),
        (r"#### (\d+)$", "-13", False),
        (r"#### (\d+)$", "1,300", False),
        (r"([A-D])", "B", True),
        (r"([A-D])", "(B)", False),
        (r"<answer>(?P<found>[^<]*)</answer>", "a < b", False),
        (r"<answer>(?P<found>[^<]*)</answer>", "a > b", True),
        (r"(?:is|=)\s(yes|no)\.", "maybe", False),
        (r"(?:is|=)\s(yes|no)\.", "yes", True),
        # What cannot be told for certain is no objection.
        (r"(?:is|=) (\b\d+\b)", "x", True),
        (r"(?i)is (yes|no)", "YES", True),
        (r"is (?i:(yes|no))", "YES", True),
        (r"(?:is|=) ((?=x).)", "y", True),
        (r"^is (.+)", "y", True),
    ],
)
def test_known_cases(pattern: str, answer: str, expected: bool) -> None:
    assert can_find(pattern, answer) is expected


def test_case_may_not_count() -> None:
    assert not can_find("is (yes|no)", "YES")
    assert can_find("is (yes|no)", "YES", ignore_case=True)
    assert not can_find("is (yes|no)", "MAYBE", ignore_case=True)


ALPHABET = "ab={}"
PATTERNS = [
    FINAL_ANSWER.replace("[Aa]nswer:", "b"), r"=(.*?)=", r"=(.*)=", r"\{(.*?)\}", r"\{(.*)\}", r"\{([^}]*)\}", r"(a+)",
    r"a(.)b", r"=(a|b)$", r"^(.*)$", r"(?:a|b)(=?)", r"=([ab]*)", r"a(b*?)", r"(\{.*\})", r"b(?!a)(.)", r"(a(?:b|=)?)=",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_no_text_finds_what_is_said_never_to_be_found(pattern: str) -> None:
    """Every text of up to six characters is searched: what the pattern finds in one must not be called impossible."""
    found = set()
    for length in range(7):
        for characters in product(ALPHABET, repeat=length):
            answer = find_answer("".join(characters), pattern)
            if answer is not None:
                found.add(answer)
    assert found
    assert [answer for answer in sorted(found) if not can_find(pattern, answer)] == []


def question(reference: str | None, **extra: object) -> Prompt:
    return Prompt(prompt_id="q", messages=(), token_ids=(), reference=reference, task="t", extra=dict(extra))


@pytest.mark.parametrize(
    ("spec", "good", "bad"),
    [
        ({"type": "exact_match"}, ["7", "x y"], ["x = 7", "a\nb"]),
        ({"type": "exact_match", "answer_pattern": "is (yes|no)", "ignore_case": True}, ["YES"], ["perhaps"]),
        ({"type": "numeric"}, ["7", "-1,300.5", "8%", "1/3"], ["7 km", "(B)", "about 3 or 4", "#### 42", "", None]),
        ({"type": "multiple_choice"}, ["B", " C "], ["(B)", "E", "b", "B) iron", "AB", None]),
        ({"type": "multiple_choice", "letters": "ABCDE"}, ["E"], ["F"]),
        ({"type": "math_verify"}, [r"\frac12", "so #### 3", r"it is \boxed{2}"], ["", " $ $ ", r"\boxed{}", None]),
        ({"type": "response_format", "pattern": ".+"}, [None, "x"], []),
        ({"type": "remote", "url": "http://127.0.0.1:1/"}, [None, "x"], []),
    ],
)
def test_each_grader_says_which_references_are_no_use(
    spec: dict[str, object], good: list[str | None], bad: list[str | None]
) -> None:
    if spec["type"] == "math_verify":
        pytest.importorskip("math_verify")
    reward = build_reward(ComponentSpec.model_validate(spec), "reward.functions.0")

    def is_usable(reference: str | None) -> bool:
        try:
            return reward.unusable(question(reference)) is None
        except ValueError:
            return False

    assert [is_usable(reference) for reference in good] == [True] * len(good)
    assert [is_usable(reference) for reference in bad] == [False] * len(bad)


def test_remote_names_the_column_that_it_cannot_send() -> None:
    reward = build_reward(ComponentSpec.model_validate({"type": "remote", "url": "http://127.0.0.1:1/"}), "r")
    assert reward.unusable(question("x", level=1, names=["a"])) is None
    with pytest.raises(TypeError, match=r"prompt\.extra\['shape'\] cannot be sent as JSON: .*type set"):
        reward.unusable(question("x", level=1, shape={1, 2}))
