"""What all graders share: marks of thoughts, options, keys of answers, and whose fault a failed call is."""

from __future__ import annotations

from typing import Any

import pytest

from rollout.component import ComponentSpec, UserError
from rollout.rewards.answers.reachable import can_find
from rollout.rewards.answers.thinking import ThinkingConfig, names_a_mark, spoken
from rollout.rewards.base import InvalidScore, RewardUnavailable
from rollout.rewards.errors import RewardErrorKind, error_kind, one_line
from rollout.rewards.exact_match import answer_equals
from rollout.rewards.function import build_reward
from rollout.trajectory import Outcome
from tests.rollout.rewards.cases import case


def build(kind: str, **options: Any) -> Any:
    return build_reward(ComponentSpec(type=kind, **options), "r")


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<think>", "</think>"),
        ("<thinking>", "</thinking>"),
        ("<thought>", "</thought>"),
        ("<thoughts>", "</thoughts>"),
        ("<reasoning>", "</reasoning>"),
        ("<scratchpad>", "</scratchpad>"),
        ("<seed:think>", "</seed:think>"),
        ("[THINK]", "[/THINK]"),
        ("◁think▷", "◁/think▷"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
        ("analysis", "assistantfinal"),
    ],
)
def test_marks_that_open_models_write(opening: str, closing: str) -> None:
    usual = ThinkingConfig()
    for mark, end in ((opening, closing), (opening.upper(), closing.lower())):
        assert spoken(f"{mark}= 7{end}= 8", usual) == "= 8"
        assert opening == "analysis" or spoken(f"{mark}= 7", usual) is None
    assert names_a_mark(f"{closing}.*", usual) and names_a_mark(closing.replace("/", r"\/").upper(), usual)
    assert not names_a_mark(".*", usual) and not names_a_mark("", usual)


def test_options_of_thoughts() -> None:
    assert spoken("((a))b", ThinkingConfig(marks=(("", "))"),))) == "b"
    assert spoken("a", ThinkingConfig(marks=(("", "))"),))) == "a"
    assert spoken("a", ThinkingConfig(marks=(("", "))"),), prompt_opens=True)) is None
    with pytest.raises(UserError, match="needs a closing mark"):
        build("exact_match", thinking={"marks": [["<a>", " "]]})
    with pytest.raises(UserError, match="needs a closing mark"):
        build("exact_match", thinking={"marks": [["<b>", "</b>"], ["<A>", "<a>"]]})


class Failed(Exception):
    """An error with a status, in one of the places where clients keep it."""

    def __init__(self, where: str, status: object) -> None:
        super().__init__(where)
        holder = self
        if where.startswith("response."):
            self.response = holder = type("Response", (), {})()
        setattr(holder, where.removeprefix("response."), status)


@pytest.mark.parametrize("where", ["status", "status_code", "response.status_code"])
def test_a_status_tells_whose_fault_it_is(where: str) -> None:
    expected = {500: "infrastructure", 503: "infrastructure", 599: "infrastructure", 429: "infrastructure"}
    expected |= {499: "code", 428: "code", 430: "code", 404: "code", 200: "code", 100: "code"}
    assert {status: error_kind(Failed(where, status)).value for status in expected} == expected
    for no_status in (99, 600, "503", None):  # not of HTTP
        assert error_kind(Failed(where, no_status)) is RewardErrorKind.CODE


def test_a_status_comes_before_the_kind_of_error() -> None:
    class Down(ConnectionError):
        """As clients raise it that derive their HTTP errors from connection errors."""

        status = 404

    assert error_kind(Down()) is RewardErrorKind.CODE
    for status, kind in ((100, "code"), (499, "code"), (500, "infrastructure"), (99, "infrastructure")):
        Down.status = status
        assert error_kind(Down()).value == kind


def test_errors_without_a_status() -> None:
    names = ("TransportError", "ClientConnectionError", "ClientPayloadError", "APIConnectionError",
        "ServiceUnavailableError")  # fmt: skip
    clients = [type("Own", (type(name, (Exception,), {}),), {})("down") for name in names]
    transient = [*clients, OSError("disk"), ConnectionResetError(), TimeoutError(), RewardUnavailable("busy")]
    assert [error for error in transient if error_kind(error) is not RewardErrorKind.INFRASTRUCTURE] == []
    assert error_kind(InvalidScore("nan")) is RewardErrorKind.INVALID
    assert {error_kind(error) for error in (ValueError("a"), KeyError("b"), type("Other", (Exception,), {})())} == {
        RewardErrorKind.CODE
    }
    assert (RewardUnavailable("busy").retry_after_s, RewardUnavailable("busy", 2.5).retry_after_s) == (0.0, 2.5)
    assert str(RewardUnavailable("busy")) == "busy"


def test_an_error_in_one_line() -> None:
    assert one_line(ValueError("a\nb")) == "ValueError: a"
    assert one_line(RewardUnavailable("busy\nvery")) == "busy" and one_line(InvalidScore("nan")) == "nan"
    assert one_line(RewardUnavailable("")) == "RewardUnavailable"
    assert one_line(ValueError("x" * 400)) == "ValueError: " + "x" * 288


async def test_the_outcome_is_a_weighted_sum() -> None:
    reward = build("outcome", metrics={"success": 2.0, "turns": -0.5})
    outcome = Outcome(metrics={"success": 3.0, "turns": 4.0, "other": 9.0})
    assert await reward(*case("", None, outcome)) == 4.0
    with pytest.raises(ValueError, match="has no metric 'turns'"):
        await reward(*case("", None, Outcome(metrics={"success": 1.0})))
    with pytest.raises(ValueError, match="prompt 'p0' has no environment"):
        await reward(*case("", None))


def test_every_reward_tells_how_it_is_called() -> None:
    assert build("exact_match").is_async
    pytest.importorskip("math_verify")
    assert not build("math_verify").is_async


def test_a_range_needs_two_ends_in_order() -> None:
    assert build("exact_match", score_range=[0.0, 1.0]).config.score_range == (0.0, 1.0)
    for bounds in ([1.0, 1.0], [1.0, 0.0]):
        with pytest.raises(UserError, match=r"must be \[lowest, highest\]"):
            build("exact_match", score_range=bounds)


async def test_one_key_for_one_answer() -> None:
    texts = {"exact_match": ("= a", "= A", "x"), "numeric": ("= 0.5", "= 1/3", "x"), "multiple_choice": ("B", "C", "x")}
    for kind, (one, other, none) in texts.items():
        reward = build(kind)
        assert reward.answer_key(*case(one, "B")) != reward.answer_key(*case(other, "B")), kind
        assert reward.answer_key(*case(none, "B")) == "" != reward.answer_key(*case(one, "B")), kind
    assert build("numeric").answer_key(*case("= many", "1")) == "" == build("numeric").answer_key(*case("= <think>1",
        "1"))  # fmt: skip
    assert build("numeric").answer_key(*case("= 0.50", "1")) == build("numeric").answer_key(*case("= 1/2", "1"))
    folded = build("exact_match", ignore_case=True)
    assert folded.answer_key(*case("= aB", "")) == folded.answer_key(*case("= Ab", ""))
    form = build("response_format", pattern="a+")
    assert form.answer_key(*case("aa", None)) == form.answer_key(*case("a", None)) != form.answer_key(*case("b", None))
    outcome = build("outcome", metrics={"success": 1.0})
    assert outcome.answer_key(*case("a", None)) is None is outcome.unusable(case("a", None)[0])


async def test_references_and_cut_responses() -> None:
    assert answer_equals("so = 5 ", " 5") and not answer_equals("so = 5", "6") and not answer_equals("5", "5")
    assert answer_equals("<<5>>", "5", "<<(.)>>") and not answer_equals("", "")
    exact = build("exact_match")
    assert await exact(*case("= 5", " 5 ")) == 1.0 and await exact(*case("= A", "a")) == 0.0
    assert await build("exact_match", ignore_case=True)(*case("= Straße", "STRASSE")) == 1.0
    assert exact.unusable(case("", "5")[0]) is None
    assert "holds neither '=' nor a line break" in exact.unusable(case("", "x=5")[0])
    assert "is never that" in build("exact_match", answer_pattern="(a)").unusable(case("", "b")[0])
    assert build("exact_match", answer_pattern="(a)", ignore_case=True).unusable(case("", "A")[0]) is None
    last = build("numeric", source="last_number")
    for text, cut, score in (("It is 5", True, 0.0), ("It is 5", False, 1.0), ("It is 5.", True, 0.0), ("5 <think>5",
        False, 0.0), ("It is 5 kg", True, 1.0)):  # fmt: skip
        assert await last(*case(text, "5", cut=cut)) == score, (text, cut)
    both = build("numeric", abs_tol=0.5, rel_tol=0.01)
    assert [await both(*case(f"= {value}", "10")) for value in ("10.5", "9.5", "10.6", "9.4")] == [1.0, 1.0, 0.0, 0.0]
    assert [await both(*case(f"= {value}", "100")) for value in ("101", "99", "101.1")] == [1.0, 1.0, 0.0]
    choice = build("multiple_choice", letters="AZ")
    assert choice.unusable(case("", " Z ")[0]) is None and await choice(*case("<think>Z", "Z")) == 0.0
    for letters in ("", "ABa", "AB1", "ABA"):
        with pytest.raises(UserError, match="at least two different letters"):
            build("multiple_choice", letters=letters)


def test_patterns_whose_meaning_cannot_be_told() -> None:
    for flag in "aiLmsux":
        assert flag == "L" or can_find(rf"(?{flag})is (yes)", "no"), flag
    assert can_find("(?-i:is) (yes)", "no") and can_find(r"(?:is|=) ((?!no)yes)",
        "no") and can_find(r"(?:is|=) (yes\b)", "no")  # fmt: skip
    for inside in ("yes$", r"yes\Z", r"\Ayes", "^yes", r"yes\B", r"\byes", "(?=x).", r"yes\1"):
        assert can_find(f"(?:is|=) ({inside})", "no"), inside
    for inside in (" yes", "\tyes", "\nyes", r"\syes\s", "(?:yes)", "(?>yes)"):
        assert can_find(f"(?:is|=)({inside})", "yes") and not can_find(f"(?:is|=)({inside})", "no"), inside
    assert not can_find("is ((?:yes))", "no") and not can_find("is ((?>yes))", "no") and not can_find("^is (yes)$",
        "no")  # fmt: skip
    assert not can_find(r"<a>(.*?)</a>", "x</a>") and can_find(r"<a>(.*)</a>", "x</a>") and not can_find(r"\[(\w)\]",
        "ab")  # fmt: skip
    assert can_find(r"\[(\w)\]", "a") and can_find(r"[\]](x)", "x") and not can_find("=(a|b)",
        "c") and can_find("(?:a(?:=))(b)", "b")  # fmt: skip


def test_words_are_asked_for_by_a_reference_of_words() -> None:
    pytest.importorskip("math_verify")
    reward = build("math_verify")
    words = ("Tuesday", r"\text{Tuesday}", r"\textbf{Tuesday}", r"\mathrm{Tuesday}", r"\mbox{Tuesday}", "$Tuesday$",
        r"\boxed{Tuesday}", "x\n#### Tuesday")  # fmt: skip
    assert [text for text in words if reward.read_answer(*case("Since 3 > 2, the answer is Tuesday.", text))
        != "Tuesday"] == []  # fmt: skip
    for text in ("no solution", "Jeanne d'Arc", "Mary-Ann", "le Blanc"):
        assert reward.read_answer(*case(f"The answer is {text}.", text)) == text
    assert reward.read_answer(*case("The answer is x, as 3 > 2",
        "x")) != "x" and reward.read_answer(*case("The answer is 5", "H2O")) == "5"  # fmt: skip
    assert reward.read_answer(*case("<think>5", "5")) is None and reward.read_answer(*case("The answer is 5", "5",
        cut=True)) is None  # fmt: skip
    assert reward.answer_key(*case(r"\boxed{\frac{1}{2}}", "5")) == reward.answer_key(*case(r"$\boxed{\dfrac12}$",
        "5")) == r"\frac12"  # fmt: skip
    assert reward.answer_key(*case("", "5")) == "" and reward.unusable(case("", "5")[0]) is None
    for reference in ("", "{}", r"\boxed{ }", "#### "):
        with pytest.raises(ValueError, match="is not an expression"):
            reward.unusable(case("", reference)[0])
