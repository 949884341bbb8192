"""When two expressions are the same: siblings of what was once paid wrongly, and the edges of the tolerance."""

from __future__ import annotations

import pytest

pytest.importorskip("math_verify")

from rollout.rewards.math_grader.compare import is_equal
from rollout.rewards.math_grader.structure import parse_value
from rollout.rewards.math_grader.symbolic import TooLarge
from rollout.rewards.math_grader.values import Equation, Expression, Group, Inequality, Number, Text, Value


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        (r"7.5\times10^{-9}", r"4.2\times10^{-9}"),
        (r"6.626\times10^{-34}", r"1.6\times10^{-19}"),
        (r"\frac{1}{3^{41}}", r"\frac{1}{3^{40}}"),
        ("0.00000034", "0.00000012"),
        ("0", "0.0000003"),
        ("2^{100}", "2^{100}+1"),
        ("1000001", "1000000.5"),
        ("3.14159", "3.1416"),
        ("x", "x+0.0000001"),
        ("10^{-300}", "10^{-301}"),
    ],
)
def test_numbers_that_differ_are_different_however_small_or_large(reference: str, answer: str) -> None:
    assert not is_equal(reference, answer)
    assert not is_equal(answer, reference)
    assert is_equal(reference, reference) and is_equal(answer, answer)


@pytest.mark.parametrize(
    ("exact", "decimal", "stands_for"),
    [
        (r"\frac{1}{3}", "0.333333", True),
        (r"\frac{1}{3}", "0.33333", False),
        (r"\frac{2}{3}", "0.666666", True),
        (r"\frac{2}{3}", "0.666667", True),
        (r"\frac{2}{3}", "0.666665", False),
        (r"\frac{1}{12}", "0.083333", True),
        (r"1000\sqrt{2}", "1414.2136", True),
        (r"\pi", "3.14159265", True),
        (r"\pi", "3.1416", False),
        (r"\frac{1}{4}", "0.2500001", False),
        ("3", "3.0000001", False),
        ("3.14159265", "3.141593", True),
        ("1234567.8", "1234567.9", False),
    ],
)
def test_a_decimal_stands_for_what_it_is_rounded_from(exact: str, decimal: str, stands_for: bool) -> None:
    assert is_equal(exact, decimal) is stands_for
    assert is_equal(decimal, exact) is stands_for


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ABD", Text),
        ("2031-02-05", Text),
        ("14:30", Text),
        ("14-16", Text),
        ("3/4/2024", Text),
        ("CO2", Text),
        ("CH_4", Text),
        (r"\text{no solution}", Text),
        ("3/4", Number),
        (r"12\,500", Number),
        (r"2\frac{2}{3}", Number),
        (r"5\text{ cm}", Number),
        ("2xy", Expression),
        ("x y", Expression),
        ("10 - x", Expression),
        ("y = 2x + 7", Equation),
        ("3x - y + 13 = 0", Equation),
        ("3 + 4 = 7", Number),
        ("x > 3", Inequality),
        ("8, 9", Group),
        ("(1, 2]", Group),
    ],
)
def test_what_an_answer_is(text: str, kind: type[Value]) -> None:
    assert isinstance(parse_value(text), kind)


@pytest.mark.parametrize(
    ("reference", "answer", "equal"),
    [
        ("DBA", "ABD", False),
        ("THH", "HTH", False),
        ("silent", "listen", False),
        ("2024", "2031-02-05", False),
        ("x^2=-1", "x^2=-4", False),
        ("y=3x-4", "6x-2y-8=0", True),
        ("x>3", "-x<-3", True),
        ("x>3", "-x>-3", False),
        (r"\{1,2\}", "(1,2)", False),
        ("[1,2]", "(1,2)", False),
        (r"5\text{ cm}", r"5\text{ m}", False),
        (r"5\text{ cm}", "5", True),
        (r"\sqrt{x^2}", "x", False),
        ("101_2", "101_3", False),
        ("0.5", r"0.5\%", False),
        ("25", r"25\%", True),
    ],
)
def test_kinds_are_not_mixed_up(reference: str, answer: str, equal: bool) -> None:
    assert is_equal(reference, answer) is equal


@pytest.mark.parametrize("text", ["9^{9^{9^{9}}}", "10000000!", "2^{10^9}", "10^{10^{10}}"])
def test_what_has_too_many_digits_is_not_computed(text: str) -> None:
    with pytest.raises(TooLarge):
        is_equal("3", text)
