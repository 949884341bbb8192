r"""Expressions as mathematics: what is not read because it might mean something else, how two compare, limits."""

from __future__ import annotations

from fractions import Fraction

import pytest

pytest.importorskip("math_verify")

from rollout.rewards.math_grader.compare import is_equal
from rollout.rewards.math_grader.symbolic import TooLarge, is_near, parse, proportional, same_expression, value_of

RIGHT, WRONG = True, False


def test_what_is_not_read_without_doubt() -> None:
    doubtful = ["f'(x)", "x'", "2 3", r"2\text{cm}", r"\text{a}", "5%", "5!!", "2_1", "2_x", "2e5", "2E5", "2 e 5",
    "2.5e3", "2.5 E 3",
        "x+é", "2\u00d73", r"\angle A", r"\triangle A", r"\overline{x}", r"\begin{pmatrix}1\end{pmatrix}", r"\emptyset",
        r"\{1\}",
        "(1,2)", "", "x+", r"\frac{1}{}", "(2"]  # fmt: skip
    assert [text for text in doubtful if parse(text) is not None] == []
    assert [text for text in ("5!", "x_1", "2e", "e2", "E", "X x", "|x|", "[1]", "2 x") if parse(text) is None] == []
    assert value_of("x") is None and value_of("x+") is None and value_of("2+3").doit() == 5
    assert not same_expression("X", "x") and not same_expression("x", "x+") and not same_expression("x'", "x'")


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (r"\frac{1}{13x-11}", r"\frac{2}{26x-22}", RIGHT), (r"\frac{1}{13x-11}", r"\frac{2}{13x-11}", WRONG),
        (r"\frac{x}{x}", "1", RIGHT), (r"\sqrt{x^2}", "x", WRONG), (r"\sqrt{x^2}", "-x", WRONG), (r"\sqrt{x^2}", "|x|",
        RIGHT),
        (r"\sqrt{x^2y^2}", "xy", WRONG), (r"\sqrt{x^2y^2}", "-xy", WRONG), (r"\sqrt{x^2y^2}", "|x||y|", RIGHT), ("x-y",
        "0", WRONG),
        ("x+y", "0", WRONG), ("x-y", "y-x", WRONG), ("xy", "1", WRONG), ("x", "y", WRONG), ("a+b+c", "c+b+a", RIGHT),
        ("(x+1)^2", "x^2+2x+1", RIGHT), ("(x+1)^2", "x^2+2x+2", WRONG), (r"\frac{x}{0}", "x", WRONG), (r"\frac{x}{0}",
        r"\frac{y}{0}", WRONG),
        (r"\infty", r"-\infty", WRONG), (r"\infty+x", r"\infty+y", RIGHT), ("i", "-i",
        WRONG),
        (r"\sin^2(x)+\cos^2(x)", "1", RIGHT), (r"\sin(2)^2+\cos(2)^2", "1", RIGHT), (r"\sqrt{2}+\sqrt{3}",
        r"\sqrt{5+2\sqrt{6}}", RIGHT),
        (r"\sqrt{2}+\sqrt{3}", r"\sqrt{5+2\sqrt{6}}+10^{-60}", WRONG), (r"e^{i\pi}", "-1", RIGHT), (r"e^{i\pi}", "1",
        WRONG),
        (r"\frac{1}{(13x-11)(14x-17)(7x+8)}", r"\frac{2}{2(13x-11)(14x-17)(7x+8)}+1-1", WRONG),
        (r"\frac{1}{(13x-11)(14x-17)}", r"\frac{2}{2(13x-11)(14x-17)}+1-1", RIGHT),
    ],
)  # fmt: skip
def test_equal_wherever_both_are_defined(one: str, other: str, equal: bool) -> None:
    assert same_expression(one, other) is same_expression(other, one) is equal


@pytest.mark.parametrize(
    ("left", "right", "positive", "same"),
    [
        (("x", "3"), ("2x", "6"), False, RIGHT), (("x", "3"), ("2x", "6"), True, RIGHT), (("x", "3"), ("-x", "-3"),
        False, RIGHT),
        (("x", "3"), ("-x", "-3"), True, WRONG), (("x", "3"), ("x", "4"), False, WRONG), (("x", "3"), ("y", "3"), False,
        WRONG),
        (("x", "3"), ("x+y", "3"), False, WRONG), (("x", "x"), ("2x", "2x"), False, WRONG), (("3", "3"), ("4", "4"),
        False, WRONG),
        (("x'", "3"), ("x'", "3"), False, WRONG), (("x", "3"), ("x", "3'"), False, WRONG), (("x", "3"), ("x^2", "9"),
        False, WRONG),
        (("0x+0", "0"), ("x", "3"), False, WRONG), (("x", "3"), ("(x-3)x", "0"), False, WRONG), (("x", "3"), ("xi",
        "3i"), True, WRONG),
        (("13x", "11"), ("26x", "22"), False, RIGHT), (("13x-11", "0"), ("x", "3"), False, WRONG),
        ((r"\frac{1}{13x-11}", "3"), (r"\frac{2}{13x-11}", "6"), False, RIGHT), (("x+y", "3"), ("2x+2y", "6"), False,
        RIGHT),
        ((r"\frac{1}{(13x-11)(14x-17)(7x+8)}", "1"), (r"\frac{2}{(13x-11)(14x-17)(7x+8)}", "2"), False, WRONG),
        ((r"\frac{1}{(13x-11)(14x-17)}", "1"), (r"\frac{2}{(13x-11)(14x-17)}", "2"), False, RIGHT),
    ],
)  # fmt: skip
def test_equations_that_differ_by_a_factor(
    left: tuple[str, str], right: tuple[str, str], positive: bool, same: bool
) -> None:
    assert proportional(left, right, positive) is same


@pytest.mark.parametrize(
    ("latex", "decimal", "equal"),
    [
        (r"\pi", "3.14159265358979323846", RIGHT), (r"\pi", "3.14159265358979323848", WRONG), (r"\frac{\sqrt{2}}{17}",
        "0.083189", RIGHT),
        (r"\frac{\sqrt{2}}{17}", "0.08319", WRONG), (r"\frac{\sqrt{2}}{170}", "0.008319", WRONG), (r"\sqrt{1}",
        "1.000001", WRONG),
        (r"\sqrt{1}", "1.00000", RIGHT), (r"\sqrt{-1}", "1.0", WRONG), (r"\infty", "1.0", WRONG),
        (r"\sqrt{\frac{100}{9}}", "3.3333333", RIGHT),
        (r"1000\sqrt{2}", "1414.21", WRONG), (r"1000\sqrt{2}", "1414.214", RIGHT), (r"10^6\sqrt{2}", "1414213.6",
        RIGHT), ("2i", "2.0", WRONG),
        (r"10^6\sqrt{2}", "1414214", WRONG), (r"\sqrt{4}", "2", RIGHT), (r"\sqrt{4}", "2.5", WRONG),
        (r"\sqrt{\frac{1}{9}}", r"\frac{1}{3}", RIGHT),
        (r"\frac{\sqrt{2}}{10^9}", "0.00000000141421356", RIGHT),
    ],
)  # fmt: skip
def test_a_decimal_for_an_expression(latex: str, decimal: str, equal: bool) -> None:
    assert is_equal(latex, decimal) is is_equal(decimal, latex) is equal


def test_a_decimal_needs_six_places_or_six_digits() -> None:
    value, near = value_of(r"\frac{1}{12}"), Fraction(83333, 10**6)
    assert is_near(value, near, Fraction(1, 10**6), 5) and not is_near(value, near, Fraction(1, 10**6), 4)
    assert not is_near(value, near, Fraction(1, 10**5), 5) and not is_near(value, near, None, 5)
    assert not is_near(value, near, Fraction(1, 10**9), 5)


@pytest.mark.parametrize(
    "text",
    [
        "((4!)!)!", "(24!)!", "3001!", r"\left(\frac{1}{2}\right)^{10^9}", "1.000001^{10^{10}}",
        r"(1+10^{-6})^{10^{10}}", "x^{10^9}",
        r"\left(-\frac{1}{2}\right)^{10^9}+x", r"\binom{10^{20}}{10^{10}}", "2^{-10^9}", r"2^{2^{20}}",
        r"\pi^{10^9}",
        "x+2^{10^9}", r"(2+\sqrt{2})^{10^6}", "(10!)!",
    ],
)  # fmt: skip
def test_what_is_too_large_is_not_computed(text: str) -> None:
    with pytest.raises(TooLarge):
        is_equal("3", text)
    with pytest.raises(TooLarge):
        is_equal(text, "x+y")
    assert is_equal(text, text)


def test_what_is_not_too_large_is() -> None:
    sizes = (
        "0^{10^9}",
        "1^{10^9}",
        "(-1)^{10^9}",
        "3000!",
        "10^{10000}",
        "x^{9999}",
        r"\binom{10^9}{5}",
        "((3!)!)",
        "2^{x}",
        "x!",
        "2^{2^{13}}",
    )
    assert [text for text in sizes if is_equal("3", text)] == []
    assert is_equal("1", "1^{10^9}") and is_equal("0", "0^{10^9}")
