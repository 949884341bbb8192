r"""What an expression of an answer is, once its notation is settled: lists, brackets, units, relations, text, decimals.

Each line is a reference, what a model may write, and whether that is right. Wrong ones stand next to right ones that
differ in the same place, so that neither a rule that is too wide nor one that is too narrow goes unseen.
"""

from __future__ import annotations

import pytest

pytest.importorskip("math_verify")

from rollout.rewards.math_grader.compare import is_equal
from rollout.rewards.math_grader.structure import parse_value

RIGHT, WRONG = True, False

LISTS = (
    ("1, 2, 3", "3; 1; 2", RIGHT), ("1, 2, 3", "1, 2 and 3", RIGHT), ("1, 2, 3", "1, 2, and 3", RIGHT),
    ("1, 2, 3", "1,2,3", RIGHT), ("1, 2", r"1\text{ and }2", RIGHT), ("1, 2", r"1\text{, and }2", RIGHT),
    ("1, 2", r"1,\ 2", RIGHT), ("1, 2", r"1,\;2", RIGHT),
    ("1, 2, 3", "1, 2", WRONG), ("1, 2", "1, 2, 3", WRONG), ("1, 2", "1, 1", WRONG), ("1, 1", "1, 2", WRONG),
    ("1000, 2000", "1,000 and 2,000", RIGHT), ("1000, 2000", "1,000; 2,000", RIGHT), ("2, -2", "x = 2, -2", RIGHT),
    ("2, 5", "x = 2, x = 5", RIGHT), ("5, 2", "x = 2, y = 5", RIGHT), ("x = 5, y = 2", "x = 2, y = 5", WRONG),
    ("x = 2, y = 5", "y = 5, x = 2", RIGHT), ("2, -2, 5", r"x = \pm 2, 5", RIGHT), ("2, -2, 5", r"\pm 2, 6", WRONG),
    ("(2, 5)", "x = 2, y = 5", RIGHT), ("(2, 5)", "x = 5, y = 2", WRONG), ("(2, 5)", "2, 5", RIGHT),
    ("(2, 5)", "5, 2", WRONG), (r"\{2, 5\}", "5, 2", RIGHT), ("2, 5", r"\{5, 2\}", RIGHT), ("2, 5", "{5, 2}", RIGHT),
    (r"\{1, 2\}", r"\{1, 2, 2\}", RIGHT), ("1, 2", "1, 2, 2", WRONG), ("2", r"\{2\}", RIGHT), ("2", "[2]", WRONG),
    (r"\begin{bmatrix}1&2\end{bmatrix}", r"\left[\begin{array}{cc}1&2\end{array}\right]", RIGHT),
    ("(1,2), (3,4)", r"\{(3,4),(1,2)\}", RIGHT), ("1, 2", "1 or 2", RIGHT),
    (r"\{\}", r"\emptyset", WRONG), ("5", "5,", RIGHT), (r"\pm 3", "3, -3", RIGHT), (r"\pm 3", "3", WRONG),
    (r"1 \pm \sqrt{2}", r"1+\sqrt{2}, 1-\sqrt{2}", RIGHT), (r"\pm 1 \pm 2", "3, -3", WRONG),
    ("1/7", r"x \approx 0.14", WRONG), ("1/7", r"x = 1/7 \approx 0.14", RIGHT), ("0.14", r"x \approx 0.14", RIGHT),
    ("0.14", r"\approx 0.14", RIGHT), ("0.142857", r"1/7 \approx 0.142857", RIGHT),
)  # fmt: skip

BRACKETS = (("5", "(5)", RIGHT), ("(1,2)", "(1;2)", RIGHT), ("(1000,2)", "(1,000, 2)", RIGHT), ("(1,2,3)", "[1,2,3]",
    RIGHT), ("(1,2,3)", r"\langle 1,2,3\rangle", RIGHT), ("(1,2,3)", "[1,3,2]", WRONG), ("(1,2)",
    r"\langle 1,2\rangle", RIGHT), ("[1,2]", r"\langle 1,2\rangle", WRONG), ("(1,2]", "(1,2]", RIGHT), ("(1,2]",
    "[1,2]", WRONG), ("[1,2)", "[1,2]", WRONG), ("[1,2)", "(1,2)", WRONG), ("(1,2]", "(1,2)", WRONG), ("[1,2]",
    "[2,1]", WRONG), (r"(-\infty,\infty)", r"\mathbb{R}", RIGHT), (r"(-\infty,\infty)", r"\mathbb R", RIGHT),
    (r"\mathbb{R}", r"(-\infty,\infty)", RIGHT), (r"\mathbb{R}", r"(0,\infty)", WRONG), (r"(1,2)\cup(3,4)",
    r"(3,4)\cup(1,2)", RIGHT), (r"(1,2)\cup(3,4)", "(1,2), (3,4)", RIGHT), (r"(1,2)\cup(3,4)", r"(1,2)\cap(3,4)",
    WRONG), (r"(1,2)\cup(3,4)", "(1,2)", WRONG), (r"\{1\}\cup\{2\}", r"\{1,2\}", WRONG), ("x>3", r"\{x : x>3\}",
    RIGHT), ("x>3", r"\{x | x>3\}", RIGHT), (r"(3,\infty)", r"\{x \in \mathbb{R} | x>3\}", RIGHT), (r"(3,\infty)",
    r"\{x|x<3\}", WRONG), (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1,2)", RIGHT), (r"\begin{pmatrix}1&2\end{pmatrix}",
    "(1,2)", RIGHT), (r"\begin{pmatrix}1\\2\end{pmatrix}", "(2,1)", WRONG), (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
    "(1,2,3,4)", WRONG), (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{vmatrix}1&2\\3&4\end{vmatrix}", WRONG),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\left(\begin{array}{cc}1&2\\3&4\end{array}\right)", RIGHT),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"[\begin{array}{c|c}1&2\\3&4\end{array}]", RIGHT),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{smallmatrix}1&2\\3&4\end{smallmatrix}", RIGHT),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{Bmatrix}1&2\\3&4\end{Bmatrix}", RIGHT),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\3&4\\\end{bmatrix}", RIGHT),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "[[1,2],[3,5]]", WRONG), ("101_2", r"101_{\text{two}}", RIGHT), ("101_2",
    "101", RIGHT), ("101_2", "5", WRONG), ("101_2", "0101_2", RIGHT), ("1F_{16}", r"1f_{\text{sixteen}}", RIGHT),
    ("17_8", r"17_{\text{eight}}", RIGHT), ("17_{10}", r"17_{\text{ten}}", RIGHT), ("101_2", "111_2", WRONG), ("101",
    "101_2", RIGHT), ("101.5", "101_2", WRONG), ("0_2", "0_2", RIGHT), ("0_2", "00_2", RIGHT), (r"|(-3)|+(-2)", "1",
    RIGHT), ("2", r"\left(2\right)", RIGHT), ("(1)(2)", "2", RIGHT), ("(1)+(2)", "3", RIGHT),
)  # fmt: skip

RELATIONS = (("x=5", "5=x", RIGHT), ("5", "5=x", RIGHT), ("5", "x=6", WRONG), ("x=5", "y=5", WRONG), ("x=5",
    "total cost = 5", RIGHT), ("5", "total cost = 5", RIGHT), ("5", r"\theta=5", RIGHT), ("5", "a_1=5", RIGHT), ("5",
    "a_{n+1}=5", RIGHT), ("5", "f(2)=5", RIGHT), ("5", "P(A|B)=5", RIGHT), ("5", "P(A, B)=5", RIGHT), ("5", "x'=5",
    RIGHT), ("5", "|AB|=5", RIGHT), ("5", r"\angle ABC=5", RIGHT), ("5", r"\overline{AB}=5", RIGHT), ("5",
    r"\frac{dy}{dx}=5", RIGHT), ("5", "a+b=5", RIGHT), ("5", "m - n = 5", RIGHT), ("5", "x+y=5", WRONG), ("5", "2x=5",
    WRONG), ("(3,4)", "(x,y)=(3,4)", RIGHT), ("(3,4)", "(x, y) = (4, 3)", WRONG), ("5", "e=5", RIGHT), ("7", "3+4=7",
    RIGHT), ("3+4", "3+4=7", RIGHT), ("8", "3+4=7", WRONG), ("7", "x=3+4=7", RIGHT), ("9", r"\int_0^3 x^2\,dx=9",
    RIGHT), ("10", r"\sum_{k=1}^{4} k = 10", RIGHT), ("2", r"\lim_{x\to 0} \frac{2x}{x} = 2", RIGHT), ("3", r"x \in 3",
    RIGHT), ("y=2x+1", "2x+1=y", RIGHT), ("y=2x+1", "y=2x+2", WRONG), ("2x+1", "y=2x+1", RIGHT), ("x+y=3", "2x+2y=6",
    RIGHT), ("x+y=3", "x+y=4", WRONG), ("x+y=3", "x-y=3", WRONG), ("x+y=3", "3", WRONG), ("x^2=4", "x^2-4=0", RIGHT),
    ("x=4", "x^2=16", WRONG), ("x>3", "3<x", RIGHT), ("x>3", "x<3", WRONG), ("x>3", r"x\ge 3", WRONG), (r"x\ge 3",
    r"3\le x", RIGHT), ("x>3", "2x>6", RIGHT), ("x>3", "-x>-3", WRONG), (r"x\ne 3", r"3\ne x", RIGHT), (r"x\ne 3",
    r"-x\ne -3", RIGHT), (r"x\ne 3", r"x\ne 4", WRONG), (r"x\ne 3", "x>3", WRONG), ("1<x<3", "(1,3)", RIGHT), ("1<x<3",
    "(1,4)", WRONG), (r"1\le x<3", "[1,3)", RIGHT), (r"1<x\le 3", "(1,3]", RIGHT), (r"1\le x\le 3", "[1,3]", RIGHT),
    (r"1\le x\le 3", "[1,3)", WRONG), ("3>x>1", "(1,3)", RIGHT), ("3>x>1", "(3,1)", WRONG), ("x<3", r"(-\infty,3)",
    RIGHT), (r"x\le 3", r"(-\infty,3]", RIGHT), (r"x\le 3", r"(-\infty,3)", WRONG), ("3>x", r"(-\infty,3)", RIGHT),
    (r"3\ge x", r"(-\infty,3]", RIGHT), (r"x\ge 3", r"[3,\infty)", RIGHT), (r"x\ge 3", r"(3,\infty)", WRONG),
    ("1<x<3<y", "1<x", WRONG), ("x+y>3", "2x+2y>6", RIGHT), ("x+y>3", r"(3,\infty)", WRONG), ("x<y", "y>x", RIGHT),
    ("x<y", "x>y", WRONG), (r"x\equiv 3 \pmod{5}", "3", WRONG), ("x = 2 or x = 3", "2, 3", RIGHT),
    (r"\begin{cases}x=1\\y=2\end{cases}", "(1,2)", RIGHT), (r"\begin{cases}x=1\\y=2\end{cases}", "(2,1)", WRONG), ("7",
    r"\begin{aligned}x&=3+4\\&=7\end{aligned}", RIGHT), ("7", r"\begin{align}x&=7.\end{align}", RIGHT), ("4",
    r"\begin{gather*}2x=8,\\x=4\end{gather*}", RIGHT), ("3+4", r"\begin{aligned}x&=3+5\\&=8\end{aligned}", WRONG),
)  # fmt: skip

UNITS = (("5 cm", "5 centimeters", RIGHT), ("5 cm", "5 centimetre", RIGHT), ("5 cm", "5 mm", WRONG), ("5 cm", "6 cm",
    WRONG), ("5", "5 cm", RIGHT), ("5 cm", "5", RIGHT), ("5", r"5\text{ cm}", RIGHT), ("5", r"5\,\text{cm}", RIGHT),
    ("5 cm^2", "5 square centimeters", RIGHT), ("5 cm^2", "5 sq cm", RIGHT), ("5 cm^2", "5 cm²", RIGHT), ("5 cm^3",
    "5 cubic centimeters", RIGHT), ("5 cm^3", "5 cu. cm", RIGHT), ("5 cm^3", "5 cm³", RIGHT), ("5 cm^2", "5 cm^3",
    WRONG), ("5 cm^2", "5 cm", WRONG), ("5 cm^2", "5 centimeters squared", RIGHT), ("5 cm^3", "5 centimeters cubed",
    RIGHT), ("5 km/h", "5 km per hour", RIGHT), ("5 km/h", "5 kilometers per hour", RIGHT), ("5 km/h", "5 km/s",
    WRONG), ("5 mph", "5 km/h", WRONG), ("5 m/s", r"5\,\text{m}/\text{s}", RIGHT), ("5 kg", "5 kilograms", RIGHT),
    ("5 inches", "5 in", RIGHT), ("5 feet", "5 ft", RIGHT), ("5 foot", "5 feet", RIGHT), ("5 lb", "5 pounds", RIGHT),
    ("5 hours", "5 hr", RIGHT), ("5 hours", "5 minutes", WRONG), ("5 years", "5 yr", RIGHT), ("5 days", "5 weeks",
    WRONG), ("45°", "45 degrees", RIGHT), ("45°", "45", RIGHT), ("45°", "46°", WRONG), ("25 °C", "25 degrees Celsius",
    RIGHT), ("25 °F", "25 degrees Fahrenheit", RIGHT), ("25 °C", "25 degrees Fahrenheit", WRONG), (r"\$5", "5 dollars",
    RIGHT), (r"\$5", "5 euros", WRONG), (r"\$5", "€5", WRONG), ("€5", "5 euros", RIGHT), ("£5", "5 GBP", RIGHT), ("¥5",
    "5 yen", RIGHT), ("5 cents", "5¢", RIGHT), (r"\$5", "USD 5", WRONG), (r"-\$5", r"\$-5", RIGHT), (r"-\$5", r"\$5",
    WRONG), ("5", "US$5", RIGHT), ("5 apples", "5 apple", RIGHT), ("5 apples", "5 pears", WRONG), ("5", "5 red apples",
    RIGHT), ("5", "5 x", WRONG), ("5", "5m", WRONG), ("5 m", "5 meters", RIGHT), ("5", "5 more", WRONG), ("5",
    "5 or 6 apples", WRONG), ("25", r"25\%", RIGHT), ("0.25", r"25\%", RIGHT), ("0.25", "25 percent", RIGHT), ("0.5",
    "0.5%", WRONG), (r"25\%", "25", RIGHT), (r"25\%", "0.25", RIGHT), (r"25\%", "0.025", WRONG), (r"25\%", "26%",
    WRONG), (r"x\%", "x/100", RIGHT), (r"x\%", "x", WRONG), (r"50\%", r"\frac{1}{2}", RIGHT), (r"\frac{100}{3}\%",
    r"\frac{1}{3}", RIGHT), ("1/3", "33.3333%", RIGHT), ("1/3", "33%", WRONG), (r"25\%", "25 cm", WRONG),
    (r"3\sqrt{2} \text{ cm}", r"3\sqrt{2}", RIGHT), (r"3\sqrt{2} \text{ cm}", r"3\sqrt{2} \text{ m}", WRONG), (r"9\pi",
    r"9\pi \text{ cm}^2", RIGHT), ("7th", "7", RIGHT), ("7", r"7^{\text{th}}", RIGHT), ("1", "1st", RIGHT), ("2",
    "2nd", RIGHT), ("3", "3rd", RIGHT), ("4", r"4\text{th}", RIGHT), ("3", "4th", WRONG), ("3 million", "3000000",
    RIGHT), ("3 million", "3", WRONG), (r"5\text{ and }6\text{ cm}", "5", WRONG), ("(3, 4)", r"(3, 4)\text{ cm}",
    RIGHT), ("5", r"5\text{ remainder }2", WRONG),
)  # fmt: skip

TEXTS = (("ABC", "abc", RIGHT), ("ABC", "ACB", WRONG), ("A", "a", WRONG), ("A", "(A)", RIGHT), ("C", r"\text{(C)}",
    RIGHT), ("no solution", "No Solution.", RIGHT), ("no solution", "no  solution", RIGHT), ("no solution", "solution",
    WRONG), ("Mary-Ann", "Mary - Ann", RIGHT), ("O'Neil", "O'Neil", RIGHT), ("Dr. Smith", "Dr. Smith", RIGHT),
    ("Tuesday", "Tuesday!", RIGHT), ("9:05", "09:05", RIGHT), ("9:05", "9:50", WRONG), ("9:05 am", "9:05 a.m.", RIGHT),
    ("9:05 am", "9:05 pm", WRONG), ("9 am", "9 a.m.", RIGHT), ("9 am", "9 pm", WRONG), ("3:4", "3 : 4", RIGHT), ("3:4",
    "4:3", WRONG), ("3:4", "3/4", WRONG), ("1:2:3", "1:2:3", RIGHT), ("1:2:3", "1:3:2", WRONG), ("2024-05-17",
    "2024-5-17", RIGHT), ("2024-05-17", "2024-05-18", WRONG), ("14-16", "14 - 16", RIGHT), ("14-16", "14--16", RIGHT),
    ("14-16", "14 to 16", WRONG), ("14 to 16", "14 to 16", RIGHT), ("14-16", "14-16 years", RIGHT), ("14-16", "-2",
    WRONG), ("17/05/2024", "17/5/2024", RIGHT), ("17.05.2024", "17.05.2024", RIGHT), ("17.05.2024", "17.06.2024",
    WRONG), ("555-123-4567", "555-123-4567", RIGHT), ("(555) 123-4567", "(555) 123-4567", RIGHT), ("(555) 123-4567",
    "(555) 123-4568", WRONG), ("CO_2", "CO2", RIGHT), ("CO2", "CO_{2}", RIGHT), ("CO2", "CO3", WRONG), ("H_2O",
    r"\mathrm{H_2O}", RIGHT), ("A1", "a1", RIGHT), ("Room 5", "5", WRONG), ("ISO-9001", "ISO-9001", RIGHT),
    ("ISO-9001", "ISO-9002", WRONG), ("3D", "3D", RIGHT), ("3D", "3", WRONG), ("e", "2.718281828", RIGHT), ("e", "E",
    WRONG), ("i", "I", WRONG), ("x", r"\text{x}", RIGHT), ("x y", "xy", RIGHT), ("ab", "ba", WRONG), ("a b", "b a",
    RIGHT), ("yes", "no", WRONG), ("Yes", r"\textbf{yes}", RIGHT), ("red and blue", "red", WRONG), ("red, blue",
    "blue and red", RIGHT),
)  # fmt: skip

DECIMALS = (("1/3", r"0.\overline{3}", RIGHT), ("1/3", r"0.\bar{3}", RIGHT), ("1/3", r"0.\dot{3}", RIGHT), ("1/3",
    r".\overline{3}", RIGHT), ("1/3", r"0.\overline 3", RIGHT), ("1/6", r"0.1\overline{6}", RIGHT), ("1/6",
    r"0.\overline{16}", WRONG), ("-1/3", r"-0.\overline{3}", RIGHT), ("1/3", r"-0.\overline{3}", WRONG), ("37/3",
    r"12.\overline{3}", RIGHT), ("16/99", r"0.\overline{16}", RIGHT), ("1/6", "0.1666...", RIGHT), ("1/7",
    "0.142857142857...", RIGHT), ("1/3", "0.33...", WRONG), ("1/3", "-0.333...", WRONG), ("-1/3", "-0.333...", RIGHT),
    ("37/3", "12.333...", RIGHT), ("100/3%", r"33.\overline{3}\%", RIGHT), ("1/3", r"33.\overline{3}\%", RIGHT),
    (r"\$1/3", r"\$0.\overline{3}", RIGHT), ("€1/3", r"\$0.\overline{3}", WRONG), ("2", "--2", RIGHT), ("2", "-(-2)",
    RIGHT), ("-2", "-(2)", RIGHT), ("2", "-(2)", WRONG), ("1/3", "0.3333333", RIGHT), ("1/3", "0.3333334", RIGHT),
    ("1/3", "0.3333335", WRONG), ("2/3", "0.66667", WRONG), ("1/12", "0.083333", RIGHT), ("1/12", "0.083334", RIGHT),
    ("1/12", "0.083335", WRONG), ("1/300", "0.003333", WRONG), ("1/4", "0.250000", RIGHT), ("1/4", "0.250001", WRONG),
    ("3.14159265", "3.141593", RIGHT), ("3.14159265", "3.141592", WRONG), ("3.14159265", "3.1415927", RIGHT),
    ("3.14159265", "3.1416", WRONG), (r"\sqrt{2}", "1.414214", RIGHT), (r"\sqrt{2}", "1.41421", WRONG), (r"\sqrt{2}",
    "1.414213", RIGHT), (r"\sqrt{2}", "1.414215", WRONG), (r"-\sqrt{2}", "1.414214", WRONG), (r"\sqrt{2}", "1.5",
    WRONG), (r"\sqrt{4}", "2", RIGHT), (r"\sqrt{4}", "3", WRONG), (r"\sqrt{-1}", "1.000000", WRONG), ("x", "x+1",
    WRONG), ("x", "1", WRONG), (r"\frac{x^2-1}{x-1}", "x+1", RIGHT), (r"\frac{x^2-1}{x-1}", "x-1", WRONG), (r"\infty",
    r"\infty", RIGHT), (r"\infty", "1", WRONG), ("3!", "6", RIGHT), (r"\frac{1}{x}", r"\frac{1}{x+1}", WRONG), ("0.5",
    "1/2", RIGHT), ("0.50", "0.5", RIGHT), ("1e3", "1000", RIGHT), ("1.5e-3", "0.0015", RIGHT), ("1.5e-3", "0.00151",
    WRONG),
)  # fmt: skip


PRODUCTS = (("6", "(2)(3)", RIGHT), ("5", "(2)(3)", WRONG), ("6", "{2}(3)", RIGHT), ("5", "{2}(3)", WRONG), ("-6",
    "-(2)(3)", RIGHT), ("-5", "-(2)(3)", WRONG), ("6", "2[3]", RIGHT), ("5", "2[3]", WRONG), ("24", "(2)(3)(4)",
    RIGHT), ("9", "(2)(3)(4)", WRONG), ("6", r"2\binom{3}{2}", RIGHT), ("5", r"2\binom{3}{2}", WRONG), ("12",
    r"\binom{3}{2}(4)", RIGHT), ("7", r"\binom{3}{2}(4)", WRONG), ("6", r"\binom{3}{2}\binom{2}{1}", RIGHT), ("5",
    r"\binom{3}{2}\binom{2}{1}", WRONG), ("6", r"\frac{4}{2}(3)", RIGHT), ("5", r"\frac{4}{2}(3)", WRONG), ("1",
    r"(2)\frac{1}{2}", RIGHT), ("5/2", r"(2)\frac{1}{2}", WRONG), ("5/2", r"2\frac{1}{2}", RIGHT), ("1",
    r"2\frac{1}{2}", WRONG), (r"3\pi r^2", r"\pi r^2(3)", RIGHT), ("x^2y", "x^2(y)", RIGHT), (r"\sin^2 x",
    r"\sin^2(x)", RIGHT),
)  # fmt: skip


SIGNS_OF_UNITS = "in m g t l L s h N J W V A K min day oz".split()


def test_letters_are_units_after_a_blank_only() -> None:
    assert [sign for sign in SIGNS_OF_UNITS if not is_equal("5", f"5 {sign}") or is_equal("5", f"5{sign}")] == []
    assert [text for text in ("5$", "5€", "5£", "5¥", "5₹", "5¢", "A$5", "C$5", "CA$5", "AU$5") if not is_equal("5",
        text)] == []  # fmt: skip
    ordinals = [form % end for end in ("st", "nd", "rd", "th") for form in ("5%s", r"5^{\text{%s}}", r"5\text{%s}",
        r"5^ { \text{%s} }")]  # fmt: skip
    assert [text for text in ordinals if not is_equal("5", text)] == []


FURTHER = (("5", "|x|=5", WRONG), ("|x|=5", "x=5", WRONG), ("|x|=5", "5=|x|", RIGHT),
    ("-5000", r"-\$5k", RIGHT), ("5000000", r"\$5 m", RIGHT), ("2048x/2", "1 024x", RIGHT), ("X>3", r"\{X | X>3\}",
    RIGHT), ("x+1", "(x+1) cm", RIGHT), (r"\angle ABC+1", r"\angle BCA+1", WRONG), (r"\triangle ABC+1",
    r"\triangle BCA+1", WRONG), ("720", "3!!", WRONG), ("14-16", "14-16 Years", RIGHT), ("1, 2, 3", r"1,\ 2,\ 3",
    RIGHT), ("x+1", r"x\,+\:1", RIGHT), ("x+1", "x~+ 1", RIGHT), ("xy", "xXXXXy", WRONG), (r"25\%", "25x", WRONG),
    ("1", r"1\%", WRONG), )  # fmt: skip


@pytest.mark.parametrize(
    "group", ["FURTHER", "PRODUCTS", "LISTS", "BRACKETS", "RELATIONS", "UNITS", "TEXTS", "DECIMALS"]
)
def test_right_and_wrong_ones_of_a_kind(group: str) -> None:
    lines = globals()[group]
    assert [line for line in lines if is_equal(line[0], line[1]) is not line[2]] == []


@pytest.mark.parametrize("text", ["", " ", r"\text{ }", "{}", ".", ",", "\\\\"])
def test_nothing_is_no_answer(text: str) -> None:
    assert parse_value(text) is None
    assert not is_equal("0", text) and not is_equal(text, "0") and not is_equal(text, text)
