"""What is read as an answer, of which the tables of notations only see the verdict; strange texts take linear time."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest

from rollout.rewards.answers.claims import boxed, tagged
from rollout.rewards.answers.expressions import read_expression
from rollout.rewards.answers.numbers import last_number, numbers_in, only_number, parse_number
from rollout.rewards.answers.spans import math_spans
from rollout.rewards.answers.units import canonical


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (r"First \boxed{8}. Sorry, it is \boxed{9}.", "9"),
        (r"\boxed{8}, \boxed{9}", "8, 9"),
        (r"x=\boxed{8}, y=\boxed{9}", "8, 9"),
        (r"\boxed{8}\%", r"8\%"),
        ("The answer is about 5 meters because 3 + 2 = 5.", "5 meters"),
        ("The answer is $x=2$ and $x=3$.", "x=2, x=3"),
        ("Answer: First 3+4 = 7. Then 7*2 = 14.", "7*2 = 14"),
        ("So the line is y = 2x + 7", "y = 2x + 7"),
        ("The roots are 5, 7.", "5, 7"),
        ("In 2020, 5 people", "5"),
        ("It costs $5 and gives $x=3$", "x=3"),
        ("3 + 4 = ?", None),
        ("The answer is not 5", None),
        ("", None),
    ],
)
def test_the_expression_that_is_read(text: str, read: str | None) -> None:
    assert read_expression(text) == read


def test_a_response_that_was_cut_must_not_end_in_its_answer() -> None:
    assert read_expression("The answer is 3", is_whole=False) is None
    assert read_expression("The answer is 3. So", is_whole=False) == "3"
    assert read_expression(r"\boxed{3}", is_whole=False) == "3"


def test_words_are_read_where_the_reference_is_one() -> None:
    assert read_expression("So x = 3. The answer is Tuesday, as 3 > 2.", wants_words=True) == "Tuesday"
    assert read_expression("The answer is not Tuesday", wants_words=True) is None
    assert read_expression("It is $ABD$.", wants_words=True) == "ABD"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The balance is -$12", "-$12"),
        ("At night it is \u22127 degrees", "-7"),
        ("Prices rise by 8%", "8%"),
        ("1 000 000 people", "1 000 000"),
        ("Ages 14-16", "16"),
        ("It is - 7", "-7"),
        ("10 - 7", "7"),
        ("on 2031-02-05", None),
        ("H2O", None),
    ],
)
def test_the_last_number_with_what_belongs_to_it(text: str, number: str | None) -> None:
    assert last_number(text) == number
    assert number is None or parse_number(number) is not None


def test_one_number_among_words() -> None:
    assert only_number("about 12 km/h") == 12
    assert only_number("5 or 6") is only_number("not 5") is only_number("half of 5") is None
    assert numbers_in("3 apples and -4.5 pears") == ["3", "-4.5"]
    assert parse_number(r"1.6\times10^{-19}") == Fraction(16, 10**20)


def test_claims_and_spans() -> None:
    assert [claim.content for claim in boxed(r"\boxed{\frac{1}{2}} \fbox{3} \boxed{} \boxed 4")] == [
        r"\frac{1}{2}",
        "3",
        "4",
    ]
    assert [claim.content for claim in tagged("<answer>1</answer> <answer>2")] == ["1", "2"]
    assert [item.text for item in math_spans(r"$5 and $7, $x$, \(y\), \[z\]")] == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("one", "other"),
    [("centimeters", r"\text{ cm}"), ("square feet", "ft^2"), ("km per hour", r"\text{km/h}"), ("apples", "apple")],
)
def test_names_of_one_unit(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


HOSTILE = (
    "\\boxed{" * 15_000 + "}" * 15_000, "answer is " * 15_000, "1 and " * 15_000, "$1 " * 15_000, "( 1 " * 15_000,
    "(" * 60_000, "<answer>" * 10_000, "<think>" * 10_000, "it should be wait " * 5_000, "1 111 " * 10_000,
    "\\frac{1}{" * 10_000, "1^" * 30_000, "5 km 5 feet " * 5_000, " " * 60_000 + "1", "9" * 60_000,
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:10].strip())
def test_strange_responses_take_linear_time(text: str) -> None:
    """A tenth of the text takes more than a fiftieth of the time; a square would take a hundredth."""

    def seconds(part: str) -> float:
        began = time.perf_counter()
        read_expression(part)
        last_number(part)
        return time.perf_counter() - began

    seconds(text[: len(text) // 10])  # compiles what is compiled on first use
    least = min(seconds(text[: len(text) // 10]) for _ in range(3))
    assert min(seconds(text) for _ in range(2)) < 50 * least + 1.0
