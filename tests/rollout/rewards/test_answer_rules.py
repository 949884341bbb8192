r"""Rules for finding an answer, one after the other, with every word, mark and sign that a rule names.

A word that is not known costs a right answer; one that is taken for more than it says pays for a wrong one.
"""

from __future__ import annotations

import pytest

from rollout.rewards.answers.choices import find_choice
from rollout.rewards.answers.claims import boxed
from rollout.rewards.answers.expressions import read_expression
from rollout.rewards.answers.numbers import last_number, only_number
from rollout.rewards.answers.reachable import can_find
from rollout.rewards.answers.spans import math_spans
from rollout.rewards.answers.units import canonical


def read_otherwise(texts: list[str], expected: str | None, **options: bool) -> list[tuple[str, str | None]]:
    return [(text, found) for text in texts if (found := read_expression(text, **options)) != expected]


def squeezed(text: str | None) -> str:
    return (text or "").replace(" ", "")


def test_what_may_stand_between_two_boxes_of_a_list() -> None:
    pieces = (" ", "$", r"\(", r"\)", r"\[", r"\]", r"\quad ", r"\qquad ", r"\text{", r"\mathrm{", r"\,", r"\;", r"\:",
        "\\ ", "{", "}", "*", "x =", "x_1 = ", "x_{1}=", "X =")  # fmt: skip
    for joint in (",", ";", " and ", " or ", r"\text{and}", r"\text{ or }", " AND "):
        texts = [rf"\boxed{{1}}{piece}{joint}\boxed{{2}}" for piece in pieces]
        texts += [rf"\boxed{{1}}{joint}{piece}\boxed{{2}}" for piece in pieces]
        assert [text for text in texts if [claim.content for claim in boxed(text)] != ["1, 2"]] == []
    apart = [rf"\boxed{{1}}{piece}\boxed{{2}}" for piece in pieces] + [rf"\boxed{{1}},{'$ ' * 30}\boxed{{2}}",
        r"\boxed{1}, xy = \boxed{2}", r"\boxed{1}, \alpha \boxed{2}"]  # fmt: skip
    assert [text for text in apart if [claim.content for claim in boxed(text)] != ["1", "2"]] == []
    assert boxed(r"\[\boxed{5\].")[0].content == boxed(r"\(\boxed{5\) .")[0].content == "5"


def test_the_sign_before_a_box() -> None:
    negative = [r"-\boxed{3}", r"$-\boxed{3}$", r"x = - \boxed{3}", r"The sum is -\boxed{3}", r"The sum is - \boxed{3}",
        r"**-\boxed{3}**", "So\n-\\boxed{3}", r"  -\boxed{3}", "First:\n5\n-\\boxed{3}",
        r"(-\boxed{3})", r"so -\boxed{3}", r"\quad -\boxed{3}",
        "Thus: \u2212\\boxed{3}"]  # fmt: skip
    negative += [
        rf"It {verb} - \boxed{{3}}" for verb in ("is", "are", "will be", "equals", "is of", "amounts to", "IS")
    ]
    assert read_otherwise(negative, "-(3)") == []
    plain = [r"- \boxed{3}", "Final:\n- \\boxed{3}", r"  - \boxed{3}", r"answer - \boxed{3}", r"the well-\boxed{3}",
        r"5 - \boxed{3}", r"5 -\boxed{3}", r"x - \boxed{3}", r"X -\boxed{3}", r"f(x) - \boxed{3}", r"a_{1} - \boxed{3}",
        r"[1] - \boxed{3}", r"\pi - \boxed{3}", r"\Pi -\boxed{3}", r"- so \boxed{3}", r"this - \boxed{3}"]  # fmt: skip
    assert read_otherwise(plain, "3") == []


def test_what_follows_a_phrase() -> None:
    right = [
        "So 2 + 3 = 5Answer: 5. Then 7",
        r"The answer \to 5. Then 7",
        "Answer: total cost = 5. Then 7",
        "Answer: Total = 5. Then 7",
        "Answer: 5 . Then 7",
        "Answer: 9. Answer: 5\n####",
        "Answer: 5. Nothing to 7 > 6",
    ]
    assert read_otherwise(right, "5") == []
    kept = [
        "Answer: 5. So the answer > 9 or so",
        r"Answer: 5. The answer \top 9",
        "Answer: 5. The answerer is 9",
        "Answer: 5. My answers to 9",
        *[f"Answer: 5. The answer is 9{end}" for end in (" ?", "*?", "_?", ")?", "**?")],
    ]
    assert [text for text in kept if read_expression(text) != "5"] == []
    assert read_otherwise([r"The answer is -$\frac{1}{2}$. Then 7", "The answer is \u2212$\\frac{1}{2}$. Then 7"],
        r"-\frac{1}{2}") == []  # fmt: skip
    assert read_otherwise(["Answer: e\nDone\nat last", "Answer: **e**", "Answer: e.", "The answer is `e`"], "e") == []
    assert read_otherwise([r"\boxed{12}. The answer is 13" + "\nThen we are done here.", r"\boxed{12}. Answer: 13.",
        r"\boxed{12}. The answer is **13**!"], "13") == []  # fmt: skip
    assert read_otherwise([r"\boxed{12}. It should be 13. No error there.", r"\boxed{12}. The answer is 13 or so then.",
        r"\boxed{12}. The answer is 13, as we saw"], "12") == []  # fmt: skip
    words = "because since as where when if for".split()
    assert read_otherwise([f"The answer is 5 {word} x and 7 hold" for word in words], "5") == []
    nouns = ("apples and", "apples or", "red apples and", "apples, and", "apples, or", "apples,", "apples ,")
    assert read_otherwise([f"The answer is 5 {noun} 7. Then 9" for noun in nouns], "5, 7") == []
    assert read_otherwise(["So it is 5 here. Not 7.", "So it is 5 here. It CANNOT be 7.", "So it is 5 here. Not  7"],
        "5") == []  # fmt: skip
    assert read_otherwise(["We get 5, 7 and 9.", "We get 5, 7, and 9."], "5, 7, 9") == []
    assert (
        read_otherwise(
            ["So it is _5_, _7_.", "The roots are __5__, __7__", "The roots are *5* ; *7*", "We get $5$ and$7$."],
            "5, 7",
        )
        == []
    )


TAG = r"\frac{\sqrt{\alpha}}{\beta}+\gamma"


def test_a_tag_of_commands_is_read_whole() -> None:
    assert read_expression(f"<answer>{TAG}</answer>") == TAG
    assert (
        read_expression(r"<answer>\left(\frac{1}{2}, \sqrt{3}\right)</answer>") == r"\left(\frac{1}{2}, \sqrt{3}\right)"
    )


UNITS_BEHIND = (
    r"%|\%|percent|per cent|percentage point|percentage points|€|£|¥|₹|¢|°|°C|°F|° C|°Celsius|° Fahrenheit|Celsius|"
    "Fahrenheit|degrees Celsius|degree Fahrenheit|hundred|thousand|million|billion|trillion|million km|thousand meters|"
    "square cm|cubic m|sq ft|sq. ft|cu cm|cu. ft|km²|km³|km^2|km^{3}|km squared|km cubed|km/h|km / h|km per hour|"
    "millions|dozen|dozens|m/s²|kg|lbs|inches|watts|W|kWh|g/mL|square feet per hour"
).split("|")


def test_units_behind_a_number_in_words() -> None:
    found = {unit: read_expression(f"So it is 5 {unit} then") for unit in UNITS_BEHIND}
    assert {
        unit: text for unit, text in found.items() if (text or "").replace(" ", "") != f"5{unit}".replace(" ", "")
    } == {}
    glued = ("%", r"\%", "€", "°", "°C", "°F", "km", "°Celsius", "kg")
    assert [
        unit for unit in glued if (read_expression(f"So it is 5{unit} then") or "").replace(" ", "") != f"5{unit}"
    ] == []
    none = ("kmx", "°Cel", "squared", "km7", "more", "cubic", "perhaps", "Celsiusx")
    assert {
        word: text for word in none if (text := read_expression(f"So it is 5 {word} then")) not in ("5", "5 °"[:1])
    } == {}
    assert read_otherwise(["It is 5\nkm are many", "It is 5.\nkm"], "5") == []
    same = {"in": "Inches INCHES inch.", "°C": "°Celsius Celsius", "$/kg": r"\$/kg", "m^3": "m^3 m³",
        "kg": "Kilograms KG Kg", "km/h": "km/hour"}  # fmt: skip
    assert {sign: word for sign, words in same.items() for word in words.split() if canonical(word) != sign} == {}
    assert canonical("km/ h") == canonical("km /h") == canonical("km / hour") == "km/h"
    assert canonical("square feet/hour") == canonical("sq. ft / h") == canonical("square feet per hour") == "ft^2/h"
    assert canonical("cubic m/s") == canonical("cu. m / s") == canonical("m^3/s") == "m^3/s"
    assert canonical("feet ^2") == canonical("ft^ 2") == canonical("feet ^ 2") == "ft^2"
    assert canonical("m  cubed") == "m^3" and canonical("m  squared") == "m^2" and canonical("km  per  hour") == "km/h"


RUNS = {
    "So we get 3 x 10^8": "3 x 10^8", "3 + 4 ≈": None, "x :=": None, "3 + 4 ==": None, r"3 + 4 \approx": None,
    r"It is \pm 5": r"\pm 5", r"x \le 3": r"x \le 3", r"x \ne 3": r"x \ne 3", r"x \geq 3": r"x \geq 3",
    r"2 \cdot 3": r"2 \cdot 3", r"A \cap 3": r"A \cap 3", "It is 2 3⁄4": "2 3⁄4", "It is 12 3/4": "12 3/4",
    "It is 2 13/24": "2 13/24", "It is -2 3/4": "-2 3/4", "minus 3 a 5": "5", "is negative 3 a 5": "5",
    "5.5 feet 4.25 inches": "5.5 feet 4.25 inches", "5 feet, 4 inches": "4 inches", "It is 25°Celsius": "25°Celsius",
    "So y = ± 5": "y = ± 5", r"So y = \pm 5": r"y = \pm 5", "2 + ± 3": "2 + ± 3",
    "So x = \u2013 5": "x = \u2013 5", "So y = + 5": "y = + 5", "It is \u2013 5": "\u2013 5", "The total \u2013 5": "5",
    "1,5 feet 4 inches": "1,5 feet 4 inches", "It is $1 000": "$1 000", "It is -1 000": "-1 000",
    "It is 1 000.5": "1 000.5", "It is 1000 000": "000", "It is 1 000%": "1 000%", "It is 12 345 678": "12 345 678",
    "at 3:30 p.m": "3:30 p.m", "at 3:30 pm.": "3:30 pm.", "at 3:30 past": "3:30", "**x = 5**": "x = 5",
    "(x = 5)": "(x = 5)", "f(x) = [1, 2] + 3": "f(x) = [1, 2] + 3", "f(1, 2": "2", "see (a, b, 3": "3",
    "x = sin (2)": "x = sin (2)", r"x = \sin 2x": r"x = \sin 2x", r"3\log 8": r"3\log 8",
    "so y = 3sqrt (2)": "y = 3sqrt (2)", "the max 5 holds": "5", "a sin 5": "5", "It is 5 (6)": "(6)",
    r"x = \sin (2)": r"x = \sin (2)", r"5 \text{ cm}": r"5 \text{ cm}", r"5\,\text{cm} it": r"5\,\text{cm}",
    r"It is 5\textbf{cm}": r"5\textbf{cm}", r"It is 5\mathrm{cm}": r"5\mathrm{cm}", r"It is 5\text{cm}": r"5\text{cm}",
    r"It is 5\operatorname{cm}": r"5\operatorname{cm}", "xyz = 5": "5", "2xyz = 5": "2xyz = 5", "2wxyz = 5": "5",
    "(2)xy = 5": "(2)xy = 5", "2^xy = 5": "2^xy = 5", "{2}ab = 5": "{2}ab = 5", "2. apples": None, "3) pears 7": "7",
    "1234. apples": "1234", "Step. 3": None, "Steps: 3": "3", "see step, 3": "3", "Stepping 3": "3",
}  # fmt: skip


def test_expressions_in_plain_text() -> None:
    assert {text: read_expression(text) for text in RUNS} == RUNS
    greek = "πθαβγλμσφω∞"
    assert [letter for letter in greek if read_expression(f"So y = {letter} here") != f"y = {letter}"] == []


SPANS = {
    r"$ \Gamma $": [r"\Gamma"], r"$ \Delta + 5 $": [r"\Delta + 5"], "$5 then $$x$$": ["x"], "$a $$x$$": ["x"],
    "It costs $ 5 USD, $ 6": [], "$$x$$ $y$": ["x", "y"], r"\(x\) $y$ \[z\]": ["x", "y", "z"], r"\(x $y\)": ["x $y"],
    r"$x$ \begin{align}y\end{align}": ["x", r"\begin{align}y\end{align}"],
    r"\begin{align}y\end{align}\begin{align}z\end{align}": [r"\begin{align}y\end{align}", r"\begin{align}z\end{align}"],
    r"$$\begin{align}y\end{align}$$ \begin{align}z\end{align}": [
        r"\begin{align}y\end{align}", r"\begin{align}z\end{align}"],
    r"$x$\begin{align}y\end{align} $$\begin{align}z\end{align}$$ $w$": ["x", r"\begin{align}y\end{align}",
        r"\begin{align}z\end{align}", "w"],
    r"\begin{align}\begin{align}y\end{align}\end{align}": [r"\begin{align}\begin{align}y\end{align}"],
    r"\begin{align*}y\end{align}": [], "$HELLO World$": [], "$Two words$": [],
    r"$\Text{two words}$": [r"\Text{two words}"],
}  # fmt: skip


def test_mathematics_between_delimiters() -> None:
    assert {text: [item.text for item in math_spans(text)] for text in SPANS} == SPANS
    env = r"\begin{align}x=5\end{align}, \begin{align}y=6\end{align}"
    assert read_expression(env) == r"\begin{align}x=5\end{align}, \begin{align}y=6\end{align}"


def test_numbers_after_an_equals_sign_and_in_words() -> None:
    forms = ("1.5", "1,250", "3/4", "2 3/4", "5%", "3 million", r"\frac{3}{4}", "2½", "¾", "2^3", "1.6e-19", "$5", "5€")
    assert [text for text in forms if last_number(f"First 9, so x = {text}") != text] == []
    assert last_number("In row 1 2345") == last_number("In row 1'2345") == "2345"
    assert last_number("It is nonnegative 5") == "5" and last_number("a nonminus 5") == "5"
    assert only_number("3 million dollars") == 3_000_000 and only_number("about 5€") == 5
    assert only_number("about 5 CM^2") == only_number("just 5 cm^{3}") == 5


def test_headings_and_letters() -> None:
    texts = ["Iron rusts in air.\n### Answer\nB", "Iron rusts in air.\n\n**Final answer**\n(B)", "x = B\nDone.\nBye.",
        "So $B$ is correct.", "So option B is correct    \nIndeed.", "B)** iron", "**B)** iron", "_B)_ iron",
        "We choose iron.\nB", "So iron 3Answer: B", "Answer: B. Thus C is out"]  # fmt: skip
    texts += [f"The correct option{mark}: B" for mark in ("**", "_", "`")] + [f"Answer{mark}: B" for mark in "*_`"]
    assert [(text, found) for text in texts if (found := find_choice(text, "ABCD")) != "B"] == []
    assert find_choice("x = A\nwhich fits\nDone.", "ABCD") == "A"
    void = "Not B|Neither|None|Both|All|Either|Unclear|Unknown|Ambiguous|Uncertain|Undetermined|Impossible".split("|")
    none = [f"Answer: B\nBut the answer is {word}." for word in void] + ["Answer: B. Hm, C.", "Answer: B. Hmm, C.",
        "Answer: B. HMM: C", "Answer: B\n####\nC"]  # fmt: skip
    assert [(text, found) for text in none if (found := find_choice(text, "ABCD")) not in (None, "C")] == []


@pytest.mark.parametrize(
    ("pattern", "answer", "found"),
    [
        (r"^=(\w*?)", "ab", False), (r"(x*)$", "xx", False), (r"(x*)", "xx", False), (r"\d(x*?)", "xx", True),
        (r"<b>(?P<a>yes)</b>", "yes", True), (r"<b>(?P<a>yes)</b>", "no", False), (r"<b>(?P<a>yes)", "no", False),
        (r"[^]](x)", "x", True), (r"[]](x)", "x", True), (r"[^)](x)", "y", False), (r"[(](x)", "x", True),
        (r"\((x)\)", "x", True), (r"\((x)\)", "y", False), (r"=(a)b$", "a", True), ("^a(b)", "b", True),
        (r"(?:=|:)(a+)$", "b", False), (r"=(?P<n>[0-9]+)$", "12", True), (r"=(?P<n>[0-9]+)$", "ab", False),
        (r"(a|b)c", "a", True), (r"(a|b)c", "c", False), (r"=((?:a)b)", "ab", True), (r"a|=(b)", "b", True),
    ],
)  # fmt: skip
def test_whether_a_pattern_can_find_an_answer(pattern: str, answer: str, found: bool) -> None:
    assert can_find(pattern, answer) is found
