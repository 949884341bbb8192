r"""When two values are the same, at the edges: decimals, percentages, lists, sets, matrices, what is left out."""

from __future__ import annotations

import pytest

pytest.importorskip("math_verify")

from rollout.rewards.math_grader.compare import is_equal

RIGHT, WRONG = True, False

DECIMALS = (
    (r"\frac{10}{3}", "3.33333", RIGHT), (r"\frac{10}{3}", "3.3333", WRONG), (r"\frac{1}{3}", r"33.333334\%", RIGHT),
    (r"\frac{1}{3}", r"33.333335\%", WRONG), (r"\frac{99999999016}{300000000000}", r"33.333334\%", RIGHT),
    (r"\frac{1}{1024}", "0.000976563", WRONG), (r"\frac{1}{1024}", "0.0009765625", RIGHT), (r"\frac{16807}{9765625}",
    "0.00172104", WRONG),
    (r"\frac{1}{30}", "0.033333", RIGHT), (r"\frac{2}{30}", "0.066667", RIGHT), (r"\frac{1}{7}", "0.14285714", RIGHT),
    ("0.12345678", "0.1234568", RIGHT), ("0.12345678", "0.1234567", WRONG), ("0.123457", "0.123458", WRONG), ("1.5",
    "1.6",
    WRONG),
    ("1.0000005", "1.000001", RIGHT), ("1.0000004", "1.000000", RIGHT), ("0.0000015", "0.000002", WRONG), ("123456.7",
    "123456.8", WRONG),
)  # fmt: skip
PERCENT = (
    (r"25\%", "25%", RIGHT), (r"25\%", "25", RIGHT), (r"25\%", "0.25", RIGHT), (r"25\%", "25 cm", WRONG), (r"0.5\%",
    "0.5", WRONG),
    (r"1\%", "1", WRONG), (r"-25\%", "-25", RIGHT), (r"-0.5\%", "-0.5", WRONG), (r"(5)\%", r"5\%", RIGHT), (r"(5)\%",
    "0.05", RIGHT),
    (r"\sqrt{2}\%", r"\frac{\sqrt{2}}{100}", RIGHT), (r"\sqrt{2}\%", r"\sqrt{2}", WRONG), (r"\sqrt{4}\%", "0.02",
    RIGHT), (r"x\%", r"x\%", RIGHT),
    (r"\sqrt{4}\%", "2", WRONG), (r"2\%", r"\frac{\sqrt{4}}{100}", RIGHT), (r"\frac{1}{3}\%", r"\frac{1}{300}", RIGHT),
    (r"x\%", r"y\%", WRONG),
)  # fmt: skip
GROUPS = (
    ("5", r"\begin{pmatrix}5\end{pmatrix}", WRONG), ("2", r"\{2,3\}", WRONG), ("2", r"\{3\}", WRONG), ("2", r"\{2\}",
    RIGHT),
    (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", WRONG),
    (r"\begin{pmatrix}1&2\end{pmatrix}", "1, 2", RIGHT),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "(1, 2), (3, 4)", WRONG), ("1, 2, 3", "[1, 2, 3]", RIGHT), ("1, 2, 3",
    "[1, 3, 2]", WRONG),
    ("(1, 2, 3)", "<1, 2, 3>", RIGHT), ("1, 2", "[1, 2]", WRONG), ("1, 2", "<1, 2>", RIGHT), ("[1, 2]", "[1, 2)",
    WRONG), (r"\{1,2\}", r"\{1,3\}", WRONG),
    (r"\{1,1,2\}", r"\{2,1\}", RIGHT), (r"\{1,2\}", r"\{1,2,3\}", WRONG), ("1, 2", "2, 1, 1", WRONG), (r"\{1,2\}",
    "1, 2, 2", WRONG),
    (r"\{1\}\cup\{2\}", r"\{2\}\cup\{1\}", RIGHT), (r"\{1\}\cup\{2\}", r"\{1\}, \{2\}", RIGHT),
    (r"\{x\in\mathbb{Z}:x>3\}", "x>3", WRONG),
    (r"\{x\in\mathbb{Z}:x>3\}", r"\{x\in\mathbb{Z}|3<x\}", RIGHT), (r"\{x\in\mathbb{Z}:x>3\}",
    r"\{x\in\mathbb{N}:x>3\}", WRONG),
    ("x = 1, y = 2", "y = 2, x = 1", RIGHT), ("x = 1, y = 2", "x = 2, y = 1", WRONG), ("x = 1, y = 2", "1, 2", RIGHT),
    ("x = 1, x = 2", "2, 1", RIGHT),
    ("(1, 2)", "x = 1, y = 2", RIGHT), ("(1, 2)", "y = 2, x = 1", WRONG), (r"x = \pm 2, 5", "5, 2, -2", RIGHT),
    (r"x = (1, 2)", "(1, 2)", RIGHT),
    (r"A = \{1, 2\}", r"\{2, 1\}", RIGHT), (r"A = \{1, 2\}", "1, 2", RIGHT), ("{x | x > 3}", r"(3, \infty)", RIGHT),
    ("[[1,2]]", "(1, 2)", RIGHT),
    (", ".join(map(str, range(64))), ", ".join(map(str, range(63, -1, -1))), RIGHT), ("x = 5, 7", "5, 7", RIGHT),
    ("[[1],[2]]", "(1, 2)", RIGHT),
    (", ".join(map(str, range(65))), ", ".join(map(str, range(64, -1, -1))), WRONG), ("[[1,2],[3,4]]", "(1, 2)", WRONG),
    ("[[1,2],[3,4]]", "1, 3", WRONG),
    ("5", "5, 5", WRONG),
)  # fmt: skip
LEFT_OUT = (
    ("x = 5", "AB = 5", RIGHT), ("x = 5", r"a_1 = 5", RIGHT), ("x = 5", "X = 5", WRONG), ("area = 5", "2x = 5", WRONG),
    (r"f'(x)\,y", "f'(x)y", RIGHT), (r"f'(x)\;y", "f'(x)y", RIGHT), (r"f'(x)\:y", "f'(x)y", RIGHT), ("f'(x)\\ y",
    "f'(x)y", RIGHT),
    ("f'(x)~y", "f'(x)y", RIGHT), ("f'(x) y", "f'(x)y", RIGHT), ("f'(x)z", "f'(x)y", WRONG), ("5", "", WRONG), ("", "5",
    WRONG), ("5 cm", "5", RIGHT),
    ("5", "5 cm", RIGHT), ("5 cm", "5 m", WRONG), (r"\sqrt{2} cm", r"\sqrt{2}", RIGHT), (r"\sqrt{2} cm", r"\sqrt{2} m",
    WRONG), ("x = 5", "5", RIGHT),
    ("5", "x = 5", RIGHT), ("x = 5", "y = 5", WRONG), ("x = 5", "the cost = 5", RIGHT), ("area = 5", "cost = 5", RIGHT),
    ("x = 5", "x = 6", WRONG),
    ("2x = 10", "5", WRONG), (r"\frac{1}{7} \approx 0.14", "1/7", RIGHT), ("1/7", r"\frac{1}{7} \approx 0.14", RIGHT),
    ("0.14", r"\frac{1}{7} \approx 0.14", RIGHT),
    (r"\frac{1}{7} \approx 0.14", "0.15", WRONG), (r"x = \frac{1}{7} \approx 0.14", "y = 0.15", WRONG), ("yes", "5",
    WRONG), ("5", "yes", WRONG),
    ("101_2", "101_2", RIGHT), ("101_2", "101", RIGHT), ("101", "101_2", RIGHT), ("101_2", "101.0", RIGHT), ("101_2",
    "yes", WRONG), ("101_2", "x", WRONG),
    ("101_2", "101_3", WRONG), ("1.5", "15_8", WRONG), ("x > 3", "x > 4", WRONG), ("1 < x < 3", "1 < x < 4", WRONG),
    ("1 < x < 3", "3 > x > 1", RIGHT),
    ("1 < x < 3", "x > 1", WRONG), ("x + y > 3", "3 < x + y", RIGHT), ("x + y > 3", "x + y > 4", WRONG),
    (r"x + y \le 3", r"3 \ge x + y", RIGHT),
    (r"x + y \le 3", r"3 > x + y", WRONG), (r"x \ne 3", r"3 \ne x", RIGHT), ("1 < x + y < 3", "3 > x + y > 1", RIGHT),
    ("x + y > 3", "yes", WRONG),
    ("1 < x + y < 3", "1 < x + y < 1", WRONG), ("x, y", "x", WRONG), ("3 x 4", "12", RIGHT), ("x := 5", "5", RIGHT),
    ("sinA", r"\sin(A)", RIGHT),
)  # fmt: skip


@pytest.mark.parametrize(
    "lines", [DECIMALS, PERCENT, GROUPS, LEFT_OUT], ids=["decimals", "percent", "groups", "left out"]
)
def test_right_and_wrong_ones(lines: tuple[tuple[str, str, bool], ...]) -> None:
    assert [line for line in lines if is_equal(line[0], line[1]) is not line[2]] == []
    assert [line for line in lines if is_equal(line[1], line[0]) is not line[2]] == []
