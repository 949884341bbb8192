r"""Boxes and phrases, numbers, units and text at the edges of their rules."""

from __future__ import annotations

from fractions import Fraction

from rollout.rewards.answers.claims import boxed, phrases
from rollout.rewards.answers.expressions import read_expression
from rollout.rewards.answers.numbers import last_number, only_number, parse_number
from rollout.rewards.answers.reachable import can_find
from rollout.rewards.answers.runs import plain_runs
from rollout.rewards.answers.spans import math_spans
from rollout.rewards.answers.units import canonical
from rollout.rewards.math_grader.equations import is_calculation
from rollout.rewards.math_grader.exact import as_number
from rollout.rewards.math_grader.words import as_text
from tests.rollout.rewards.cases import shown

BOXES = {
    "So\n\\boxed{5\nThen\n7": ["5"],
    r"\(\boxed{X\)": ["X"], r"\[\boxed{X\]": ["X"], r"\(\boxed{5. \).": ["5"],
    r"\boxed{5\}}": [r"5\}"], r"\boxed{\{5}": [r"\{5"], r"\boxed{a{b}c}": ["a{b}c"], "So\n\\boxed{5\nThen 7": ["5"],
    "So\n\\boxed{5": ["5"], r"\boxed{5$. ": ["5"], r"\boxed 5x y": ["5x"], r"\boxed\{5\}": [],
    r"\boxed{\text{ the answer }}": [], r"\boxed{an answer}": ["an answer"], r"\boxed{\dots}": [], r"\boxed{.}": [],
    r"\boxed{a..}": ["a.."],
    r"\boxed{1}, x_12 = \boxed{2}": ["1", "2"], r"\boxed{1} and b = \boxed{2}": ["1, 2"],
    r"\boxed{1}\quad\text{and}\quad\boxed{2}": ["1, 2"],
    r"\boxed{1}, ab = \boxed{2}": ["1", "2"], r"\boxed{1} nor \boxed{2}": ["1", "2"], r"\boxed{1} sand \boxed{2}": ["1",
    "2"],
    r"\boxed{1} andy \boxed{2}": ["1", "2"], r"\boxed{1}\, \boxed{2}": ["1", "2"], r"\boxed{1}\;\boxed{2}": ["1", "2"],
    r"\boxed{1},\boxed{2},\boxed{2}": ["1, 2"], r"\boxed{1}," + " " * 58 + r"\boxed{2}": ["1, 2"],
    r"\boxed{1}," + " " * 59 + r"\boxed{2}": ["1", "2"],
}  # fmt: skip


def test_boxes() -> None:
    assert {text: [claim.content for claim in boxed(text)] for text in BOXES} == BOXES


def test_phrases() -> None:
    said = ["answer is", "Answer:", "ANSWER IS", "answers are", "solution is", "answer =", "answer \u2192",
        "answer ->", r"answer \to", r"answer \Rightarrow", "answer to it is", "answer here is", "**answer** is",
        "answer was", "answer equals",
        "answer must be", "answer comes out to", "answer remains", "####"]  # fmt: skip
    assert [text for text in said if [claim.content for claim in phrases(f"{text} 5")] != [" 5"]] == []
    none = ["preanswer: 5", "answer2: 5", "answerer: 5", "answering is 5", "Solution: 5", "Result = 5", "answer 5",
    "answer \u2264 5", r"answer \top 5",
        "answer isn 5", "answer iss 5", "### 5", "x #### 5", "answer to. it is 5", "answer about it is 5",
        "it should be 5", "it is actually 5",
        f"answer to {'x' * 81} is 5"]  # fmt: skip
    assert [text for text in none if phrases(text)] == []
    assert [claim.content for claim in phrases("Wait, it should be 5. Oops, it must have been 6")] == [
        " 5. Oops, it must have been 6",
        " 6",
    ]
    assert [claim.content for claim in phrases("Awaiting, it should be 5")] == [] == phrases("Wait, it should bet 5")
    assert phrases("Wait." + "x" * 114 + " make that 5") and not phrases("Wait." + "x" * 115 + " make that 5")
    assert phrases("Sorry, I mean 5") and phrases("Sorry, I meant 5") and not phrases("Sorry, Fiji meant 5")
    assert phrases("Await, it should be 5") == [] == phrases("Bono, make that 5")
    assert (
        read_expression("Answer: 5. My preanswer: 9") == "5" and len(phrases("answer: " + "x" * 700)[0].content) == 600
    )


def test_numbers() -> None:
    powers = "⁰¹²³⁴⁵⁶⁷⁸⁹"
    assert [parse_number(f"2×10{sign}") for sign in powers] == [2 * 10**power for power in range(10)]
    assert [parse_number(f"2{sign}") for sign in powers] == [2**power for power in range(10)]
    assert (
        parse_number("2×10⁻³") == Fraction(2, 1000)
        and parse_number("2⁻³") == Fraction(1, 8)
        and parse_number("2^100") == 2**100
    )
    scales = {"k": 10**3, "mn": 10**6, "bn": 10**9, "m": None, "b": None, "K": None}
    assert {name: parse_number(f"5{name}") for name in scales} == {
        name: size and 5 * size for name, size in scales.items()
    }
    assert [name for name in scales if parse_number(f"5 {name}") is not None] == []
    assert [parse_number(f"$5 {name}") for name in ("k", "m", "mn", "b", "bn", "K")] == [
        5000,
        5 * 10**6,
        5 * 10**6,
        5 * 10**9,
        5 * 10**9,
        5000,
    ]
    words = {"dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
    for form in ("5 {}", "5{}", "5 {}s", "5  {}"):
        assert {word: parse_number(form.format(word)) for word in words} == {
            word: 5 * size for word, size in words.items()
        }
    assert [parse_number(text) for text in ("\\frac{\u22123}{4}", "\\frac{-3}{4}", r"1\frac{-3}{4}", r"\frac34", "3⁄4",
        "1  3/4")] == [
        Fraction(-3, 4), Fraction(-3, 4), None, Fraction(3, 4), Fraction(3, 4), Fraction(7, 4)]  # fmt: skip
    none = (
        "5 ks",
        "1e12345",
        "5/0",
        "0^0",
        r"\frac{1}{0}",
        "1/0.0",
        "--5",
        "5 dozens dozen",
        "1,00",
        "1 00",
        "5^",
        "2^1000",
        "1e1000",
        "10000000000^2",
        "$",
    )
    assert [text for text in none if parse_number(text) is not None] == []
    last = {"It is 1e12345": None, "9 then 2^1234": "9", "9 then x^{5}": "9", "9 then x_{5}": "9", "9 then x_5": "9",
    "from 5--6": "6", "so a-5": "5", "x =- 5": "-5", "It IS - 5": "-5",
    "9 on 1-2-3": "9", "9 at 5:30": "9",
        "9 in 1.2.3": "9", "9 at 5 : 6": "9", "9 is 3D": "9", "1/2/3 and 9": "9"}  # fmt: skip
    assert {text: last_number(text) for text in last} == last
    glued = (
        "st nd rd th m km cm mm nm Gm kg g mg l ml L W kW kWh V J N A Hz Pa mph kph h hr hrs s min mins ft in lb lbs "
        "oz yd mi C F K px pt pts year years day days hour hours minute minutes second seconds"
    )
    assert [unit for unit in glued.split() if last_number(f"9 then 5{unit}") != "5"] == []
    only = {r"5 \text{}": 5, r"5\text{kg}": 5, "about 5^2": None, "5.5 apples": Fraction(11, 2), "5 m^2": 5,
    "5 m ^{3}": 5,
    "5 or 6": None, "5 5": None,
    "1,000 people": 1000,
        r"\text{about} 5": 5, "**5** apples": 5, "1{,}000 apples": 1000,
        "5 apples 6B": None}  # fmt: skip
    assert {text: only_number(text) for text in only} == only


def test_units() -> None:
    same = {"km perhour": "km perhour", r"\,cm": "cm", r"\;cm": "cm", r"\:cm": "cm", r"\!cm": "cm", "\\ cm": "cm",
    "~cm": "cm",
    "square / h": "square/h", "cubic / h": "cubic/h", "X": "x", "X.": "x", "hertzes": "Hz", "inches": "in",
    "Inches": "in", "INCH": "in", "cubic m/h": "m^3/h",
    "square cm": "cm^2", "sq. in": "in^2",
        "glasses": "glasse", "x y": "x y", " km . ": "km", "m/s/s": "m/s/s", "degrees": "deg", "degree  Celsius": "°C",
        "° F": "°F", "kg m": "kg m",
        r"\rm cm": "cm", r"\operatorname{cm}": "cm", r"\mbox{cm}": "cm", r"\textbf{cm}": "cm", r"\textit": r"\textit",
        "cm$": "cm", r"\$": "$"}  # fmt: skip
    assert {unit: canonical(unit) for unit in same} == same
    whole = (
        "5 cm",
        "5 hertzes",
        "5 inches",
        "5 square feet",
        "5 cu. ft",
        "5 m³",
        "5 m ^{2}",
        "5 km/ h",
        "5 km per h",
        "5 kg²",
        "5 per cent",
    )
    assert [
        text for text in whole if [item.text for item in plain_runs(f"So {text} it", 0, len(text) + 6)] != [text]
    ] == []
    cut = ("cmX", "cm7", "cma", "cubics", "perhaps", "percents", "hundredth", "squared")
    assert [
        word for word in cut if [item.text for item in plain_runs(f"So 5 {word} it", 0, len(word) + 8)] != ["5"]
    ] == []


def test_mathematics_between_delimiters() -> None:
    spans = {"$x_{max value}$": ["x_{max value}"], "$max value$": [], "$a max value$": [],
    r"$\max value x$": [r"\max value x"], "$xy z$": ["xy z"],
        r"\begin{align}a\end{align} $x$": [r"\begin{align}a\end{align}", "x"], r"$ \alpha\beta $": [r"\alpha\beta"],
        "$ ab $": [], "$ a b $": ["a b"]}  # fmt: skip
    assert {text: [item.text for item in math_spans(text)] for text in spans} == spans


def test_text() -> None:
    texts = {"ab c_d": None, "Sand": "sand", "Thor": "thor", "android": "android", "and": None, "(e)": None,
    "(i)": None, "(k)": "k", "3:": None, "9:5:": None,
        r"ab\,cd": "ab cd", r"ab\;cd": "ab cd", r"ab\:cd": "ab cd", "ab\\ cd": "ab cd", "ab~cd": "ab cd",
        r"ab\quad cd": "ab cd", r"ab\qquad cd": "ab cd",
        "a b c": None, "a bc": "a bc", "a B": "a b", "x.": "x", "14 - years": None, "1234 apples": None,
        "12 34 apples": None, "5-6 km": "5-6"}  # fmt: skip
    assert {text: (value := as_text(text)) and value.text for text in texts} == texts
    numbers = {"5€x": "nothing", "5€/kg": "nothing", "+0.5": "1/2 ±1/10 of 1", "-$5": "-5 $", "$-5": "-5 $",
    "- $5.50": "-11/2 ±1/100 of 3 $", "5%": "5 percent",
        "5 %": "5 percent", "$5%": "5 percent $", "21st": "21", "22nd": "22", "23rd": "23", "xth": "nothing",
        "$1.5": "3/2 ±1/10 of 2 $", "$": "nothing"}  # fmt: skip
    assert {text: shown(as_number(text)) for text in numbers} == numbers
    assert (
        is_calculation([r"5\text{m}", "1"])
        and is_calculation([r"5\text{ m }", "1"])
        and not is_calculation(["5m", "1"])
    )


def test_patterns_with_options_or_names() -> None:
    assert can_find(r"\d>(?P<a>x*)", "y") is False and can_find(r"<b>(?P<a>x*)</b>", "y") is False
    assert (
        can_find("(?i)=(a)", "A")
        and can_find("=(?i:(a))", "A")
        and can_find("=(?-i:(a))", "A")
        and not can_find("=(a)", "A")
    )
    assert can_find("=(a)", "A", ignore_case=True) and not can_find("(?:=|:)(a+)", "b")
