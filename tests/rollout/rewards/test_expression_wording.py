r"""Which expression a response in words gives as its answer: claims, corrections, lists, units, labels, and LaTeX.

A sentence is tried with every word that may stand in it. What is asked is the text that is read; whether it is right
is for the comparison.
"""

from __future__ import annotations

import pytest

from rollout.rewards.answers.claims import boxed, tagged
from rollout.rewards.answers.expressions import read_expression
from rollout.rewards.answers.spans import math_spans
from rollout.rewards.answers.units import canonical


def read_otherwise(texts: list[str], expected: str | None, **options: bool) -> list[tuple[str, str | None]]:
    """The texts of which another answer is read, each with that one."""
    return [(text, found) for text in texts if (found := read_expression(text, **options)) != expected]


FILLERS = (
    "therefore|thus|hence|so|simply|just|exactly|approximately|approx.|approx|about|roughly|around|then|also|now|"
    "given by|equal to|indeed|clearly|actually|either|a total of|number|the number|value|the value|expression|"
    "fraction|integer|set|point|interval|function|matrix|vector|ordered pair|ratio|simply the number"
).split("|")
QUALIFIERS = (
    "more|less|times|fewer|greater|smaller|larger|of|out of|plus|minus|divided|multiplied|squared|cubed|through|to|"
    "way to|ways to|line|lines|step|steps|paragraph|paragraphs|part|parts"
).split("|")


def test_words_between_a_phrase_and_its_answer() -> None:
    texts = [f"Not 9. The answer is {filler} 5. It is not 7, as 8 > 7." for filler in FILLERS]
    texts += [f"The answer is {filler}, 5. So 6 is out." for filler in ("therefore", "then", "clearly")]
    texts += [f"The answer is {mark}5{end}. So 6 is out." for mark, end in ('""', "``", "“”", "‘’", "**", "__")]
    texts += ["Answer:\n\n5\nSo 6 is out.", "The equation 1 holds. Answer: 5. So 6 is out."]
    assert read_otherwise(texts, "5") == []
    assert read_otherwise([f"Answer: 9. The solution is 5 {word} long." for word in QUALIFIERS], "9") == []
    assert read_otherwise(["Answer: 9. The answer is 5?", "Answer: 9. The answer is not 5",
        "Answer: 9. The answer is in 5"], "9") == []  # fmt: skip


def test_phrases_that_announce_an_answer() -> None:
    verbs = (
        "is|are|was|would be|will be|should be|must be|equals|becomes|comes out to|remains|is:|:|=|\u2192|->|-->"
    ).split("|")
    texts = [f"Take 9. The {noun} {verb} 5. Then 7 > 6." for noun in ("answer", "answers") for verb in verbs]
    texts += [f"Take 9. The {noun} {verb} 5. Then 7 > 6." for noun in ("solution", "solutions", "result", "results")
        for verb in verbs[:11]]  # fmt: skip
    texts += [rf"Take 9. The answer \{arrow} 5. Then 7 > 6." for arrow in ("to", "rightarrow", "Rightarrow")]
    texts += [f"The answer {word} the question is 5. Then 7 > 6." for word in ("to", "for", "of", "here", "in")]
    texts += [f"{mark}Answer{mark}: 5\nThen 7 > 6." for mark in ("**", "_", "`", "'", '"')]
    texts += ["#### 5\nThen 7 > 6.", "##### 5\nThen 7 > 6.", "####5\nThen 7 > 6.", "9 > 8\n#### 5\n7 > 6"]
    assert read_otherwise(texts, "5") == []
    headings = ["Solution: 5. Then 7", "Result: 5. Then 7", "### 5\nThen 7", "The answering is 5. Then 7",
        "Answer: 5. Solution: 7. Answer: 7"]  # fmt: skip
    assert read_otherwise(headings, "7") == []


def test_corrections() -> None:
    regrets = "wait wrong mistake error sorry oops correction incorrect slip no".split()
    texts = [rf"\boxed{{12}}. {word.title()}, it should be 13." for word in regrets]
    changes = ("should be", "must be", "should have been", "must have been", "is actually", "should be:")
    texts += [rf"\boxed{{12}}. Wait, it {words} 13." for words in changes]
    texts += [rf"\boxed{{12}}. Sorry, {words} 13." for words in ("I mean", "I meant", "make that")]
    assert read_otherwise(texts, "13") == []
    kept = [r"\boxed{12}. It should be 13 at most 14.", r"\boxed{12}. It should be 13.",
        r"\boxed{12}. Nothing more. It should be 13."]  # fmt: skip
    kept += [r"\boxed{12}. Wait, it should be 13 more.", r"\boxed{12}. " + "Wait. " + "x" * 130 + " it should be 13."]
    assert read_otherwise(kept, "12") == []
    after = [f"{end}" for end in (".", "!", ";", "\n", "", " cm.", " apples", " **.", ")", " km/h.", " m².")]
    assert read_otherwise([rf"\boxed{{12}}. The answer is 13{end}"[:60] for end in after if " " not in end], "13") == []
    nouns = (" apples", " apples.", " apples!", " apples\nThen", " **.", " apples**.")
    assert read_otherwise([rf"\boxed{{12}}. The answer is 13{end}" for end in nouns], "13") == []
    assert read_otherwise([r"\boxed{12}. The answer is 13 because it is odd, as we saw above."], "12") == []


def test_boxes_and_tags() -> None:
    between = (", ", "; ", " and ", " or ", ", and ", r"\quad\text{and}\quad ", r" \text{ or } ", "$ and $", r"\), \(",
        ", y = ", r", \; ", ", x_1 = ", " **and** ")  # fmt: skip
    assert [mark for mark in between if [c.content for c in boxed(rf"\boxed{{1}}{mark}\boxed{{2}}")] != ["1, 2"]] == []
    apart = (". ", " then ", " ", "\n\n", " and so the other one is ", ", of which ", ": ", " minus ")
    assert [mark for mark in apart if [c.content for c in boxed(rf"\boxed{{1}}{mark}\boxed{{2}}")] != ["1", "2"]] == []
    assert [c.content for c in boxed(r"\boxed{5} and \boxed{5}")] == ["5"]
    assert [c.content for c in boxed(r"\boxed{\boxed{1}} then \boxed{2}")] == [r"\boxed{1}", "2"]
    empty = ("", " ", "...", r"\dots", r"\ldots", "…", "_", "?", "answer", "your answer", "final answer",
        r"\text{your answer}", "The final answer", r"\text{answer}")  # fmt: skip
    assert [text for text in empty if boxed(rf"\boxed{{{text}}}")] == []
    opened = {r"\boxed{5": "5", r"$\boxed{5$.": "5", r"\[\boxed{5\]": "5", r"\(\boxed{5\)": "5",
        "\\boxed{5\nThen 7": "5", r"\boxed 5.": "5", r"\framebox{5}": "5"}  # fmt: skip
    opened |= {r"\boxed{\{5\}}": r"\{5\}", r"\boxed{a_{1}}": "a_{1}", r"\boxed\pi": "pi"[:0] or r"\pi"[1:0],
        r"\boxed { 5 }": "5"}  # fmt: skip
    opened.pop(r"\boxed\pi")
    assert {text: boxed(text)[-1].content for text in opened} == opened
    assert boxed(r"\boxedx{5}") == boxed("boxed{5}") == boxed(r"\boxed ") == boxed(r"\boxed, 5") == []
    assert [c.content for c in boxed(r"\boxed, then \boxed{5}")] == ["5"]
    tags = ("<answer>5</answer>", "<answer>5", "<ANSWER> 5 </ANSWER>", "<final_answer>5</final_answer>",
        "<final answer>5</final answer>", "[answer]5[/answer]", "< answer >5< /answer >")  # fmt: skip
    assert [text for text in tags if [c.content for c in tagged(text)] != ["5"]] == []
    assert tagged("</answer>") == tagged("answer 5") == []
    assert read_expression("</answer>5 <answer>6</answer> or 7") == "6"


def test_what_a_box_or_tag_holds() -> None:
    cases = {r"= -\boxed{3}": "-(3)", r"-\boxed{3}": "-(3)", r"(-\boxed{3})": "-(3)", r"$-\boxed{3}$": "-(3)",
        "x: \u2212\\boxed{3}": "-(3)", r"5 - \boxed{3}": "3", r"x-\boxed{3}": "3", r"(a)-\boxed{3}": "3",
        r"\boxed{3}\%": r"3\%", r"\boxed{3}%": r"3\%", r"\boxed{3\%}\%": r"3\%", r"\boxed{3}. \%": "3",
        r"\boxed{\boxed{3}}": "3", r"\boxed{x=\boxed{3}}": "3", "<answer>x = 3</answer>": "x = 3",
        "<answer>The answer is 3</answer>": "3", "<answer>We add one and two and get 3</answer>": "3",
        r"<answer>So it is \boxed{3}</answer>": "3", r"<answer>\frac{1}{\sqrt{2}}</answer>": r"\frac{1}{\sqrt{2}}",
        r"\boxed{3}. <answer>4</answer>": "4", r"<answer>4</answer> \boxed{3}": "3",
        r"\boxed{3}. The answer is odd.": "3", r"The answer is 4. \boxed{3}": "3", }  # fmt: skip
    assert {text: read_expression(text) for text in cases} == cases


def test_lists_in_words() -> None:
    announced = ("are", "is", "be", "both", "namely", "values", "solutions", "roots", "x:", "x ∈", r"x \in")
    assert [word for word in announced if read_expression(f"We see that 9 fits, but it {word} 5, 7.") != "5, 7"] == []
    joined = ["We get 5 and 7.", "We get 5, and 7.", "We get 5 or 7.", "We get 5 & 7.", "We get **5** and **7**.",
        "We get $5$ and $7$.", "We get $5$, $7$.", "We get `5` or `7`."]  # fmt: skip
    joined += ["The answers are 5 and 7.", "The answers are 5, 7.", "The roots are 5; 7.",
        "The answers are $5$ & $7$.", "The roots are **5**, **7**."]  # fmt: skip
    assert read_otherwise(joined, "5, 7") == []
    assert read_otherwise(["The answers are 5, 7 and 9. Then 2"], "5, 7, 9") == []
    assert read_otherwise(["With 5 dogs, 7 cats", "We saw 5 then 7.", "Of those, 5, 7 cats"][:2], "7 cats") != []
    assert read_otherwise(["We saw 5 then 7.", "First 5. Then 7.", "There were 5, 7"], "7") == []
    assert read_otherwise(["Answer: 2 hours and 30 minutes. Then 7"], "2 hours, 30 minutes") == []
    denied = ("not", "cannot be", "never", "rather than", "instead of", "isn't", "isn’t", "not be", "not equal to")
    assert [words for words in denied if read_expression(f"So it is 5 here. It is {words} 7.") != "5"] == []


def test_words_as_answers() -> None:
    assert read_otherwise([f"The answer is Tuesday{end}" for end in (".", "\n", "!", "?", ";", ",", " (as it", "")],
        "Tuesday", wants_words=True) == []  # fmt: skip
    joints = ("because", "since", "as", "so", "which", "that", "and", "for", "BECAUSE")
    assert read_otherwise([f"The answer is Tuesday {word} it rains" for word in joints], "Tuesday",
        wants_words=True) == []  # fmt: skip
    marked = [f"Answer: {mark}Tuesday{end}" for mark, end in ("**", "__", "''", '""', "``", "“”", "‘’", "$$")]
    assert read_otherwise([*marked, "<answer>Tuesday</answer>", r"\boxed{Tuesday}"], "Tuesday", wants_words=True) == []
    none = [f"The answer is {word}" for word in ("not Tuesday", "wrong", "unclear", "unknown")] + ["It is Tuesday.",
        "The answer is " + "very " * 7 + "red"]  # fmt: skip
    assert read_otherwise(none, None, wants_words=True) == []
    assert read_expression("The answer is the fifth month of the year",
        wants_words=True) == "the fifth month of the year"  # fmt: skip


RUNS = {"So y = 3sin(x) + 2": "y = 3sin(x) + 2", "We get x = 2 3/4": "x = 2 3/4", "It is 1 000": "1 000",
    "It is 12 345 678 m": "12 345 678 m", "We get 5 · 3 = 15": "5 · 3 = 15", "It is ± 5": "± 5", "It is -5": "-5",
    "It is - 5": "- 5", "sum - 5": "5", "- 5": "5", "x := 5": "x := 5", "x == 5": "x == 5",
    r"x \approx 5": r"x \approx 5", "x ≈ 5": "x ≈ 5", r"2 \times 3": r"2 \times 3", r"6 \div 3": r"6 \div 3",
    r"x \leq 3": r"x \leq 3", r"x \ge 3": r"x \ge 3", r"x \neq 3": r"x \neq 3", r"A \cup 3": r"A \cup 3",
    "x <= 3": "x <= 3", "x >= 3": "x >= 3", "x ≤ 3": "x ≤ 3", "x ≥ 3": "x ≥ 3", "x ≠ 3": "x ≠ 3", "6 ÷ 3": "6 ÷ 3",
    "2 ^ 3": "2 ^ 3", "2 × 3": "2 × 3", "2 * 3": "2 * 3", "6 / 3": "6 / 3", "1 ∪ 2": "1 ∪ 2", "1 ∩ 2": "1 ∩ 2",
    "3 x 10^8": "3 x 10^8", "(3, 7)": "(3, 7)", "The point (1, 2) fits": "(1, 2)", "[2, 3) it is": "[2, 3)",
    "so {1, 2}.": "{1, 2}", "f(2) = 5": "f(2) = 5", "((1, 2), 3)": "((1, 2), 3)", "**5**": "5", "`5`": "5", "“5”": "5",
    "‘5’": "5", "«5»": "5", '"5"': "5", "_5_": "5", "(5": "5", "5)": "5", "it is 5!": "5", "is it 5?": "5",
    "0.333...": "0.333...", "0.333…": "0.333...", "at 3:30 PM": "3:30 PM", "at 3:30 a.m.": "3:30 a.m.",
    "at 3:30": "3:30", "negative 5": "-5", "minus 5": "-5", "It is 5 km": "5 km", "It is 5 km/h": "5 km/h",
    "It is 5%": "5 %"[:1] + "%", "It is 45°": "45°", "5 feet 4 inches": "5 feet 4 inches", "5 million": "5 million",
    "It is 5, say": "5", "It is $5": "$5", "√2": "√2", "2√3": "2√3", "π/2": "π/2", "2π": "2π", "½": "½", "e^2": "e^2",
    "x^2": "x^2", "2xy + 1": "2xy + 1", "∞": "∞", "x² + 1": "x² + 1", "3 + 4 =": None, "x =": None, "x": None,
    "word": None, "a b c": None, "hello + world": None, "3 + 4 = ?": None, "5 +": "5", "= 5": "5", "Step 3": None,
    "step 3.": None, "1. apples": None, "2) pears": None, "Part 2": None, "Figure 7": None, "Chapter 12": None,
    "Equation 4": None, "Lemma 2": None, "5 apples and pears": "5", "Room 101": "101", "x=5": "x=5",
    "x = 5y": "x = 5y", "log(8)": "log(8)", "cbrt(8)": "cbrt(8)", "2pi": "2pi", "max(2,3)": "max(2,3)", }  # fmt: skip


def test_runs_in_plain_text() -> None:
    assert {text: read_expression(text) for text in RUNS} == RUNS
    letters = [f"2{sign}" for sign in "πθαβγλμσφωABxyz∞°√∛′'"] + [f"3x{sign}" for sign in "²³⁰¹⁴⁵⁶⁷⁸⁹⁻⁺"]
    letters += [*"½¼¾⅓⅔⅛", "2–x", "2\u2212x", "2·x", "2×3", "6÷2", "[1,2]", "{1,2}", "|2|", "3€", "£3", "¥3", "1⁄2",
        "3±1", "a_2", "e^2"]  # fmt: skip
    assert [text for text in letters if (read_expression(f"Then it is {text}") or "").replace(" ", "") != text] == []
    signed = "is are be equals = ≈ of to".split()
    assert [word for word in signed if read_expression(f"So it {word} - 5") != "- 5"] == []
    assert read_otherwise(["Answer: e", "The answer is e."], "e") == []


def test_names_of_functions_and_letters() -> None:
    names = (
        "arcsin arccos arctan sinh cosh tanh sin cos tan cot sec csc log ln exp sqrt cbrt theta alpha beta gamma "
        "lambda abs max min gcd lcm mod"
    ).split()
    assert [name for name in names if read_expression(f"The value is 3{name}(2) here") != f"3{name}(2)"] == []
    assert [name for name in ("pi", "infinity", "inf", "theta") if read_expression(f"So y = 3{name} here")
        != f"y = 3{name}"] == []  # fmt: skip
    labels = (
        "step equation eq part case example figure fig table line method question problem chapter page section "
        "option theorem lemma rule phase day round attempt"
    ).split()
    assert [name for name in labels if read_expression(f"It is 5 as in {name} 3") != "5"] == []
    assert [name for name in labels if read_expression(f"It is 5 as in {name.title()}s 3") != "5"] == []


def test_spans_of_latex() -> None:
    spans = {"$x$": ["x"], "$$x$$": ["x"], r"\(x\)": ["x"], r"\[x\]": ["x"], "$ x $": ["x"], "$x $": [], "$ x$": [],
        "$5 and $7": [], "$5 or 6$": ["5 or 6"], "$x$5": [], "$x\n\ny$": [], "$" + "x" * 2001 + "$": [], "$"
        + "x" * 2000 + "$": ["x" * 2000], r"$\text{two words}$": [r"\text{two words}"], "$two words$": [], "$$": [],
        "$x": [], r"\$5 and $x$": ["x"], r"$x\$y$": [r"x\$y"], r"\(x\]": [], "$a$ and $b$": ["a", "b"],
        "$ 5 and 6 $": [], "$Xyz Abc$": [], "$$two words$$": ["two words"], r"\(two words\)": ["two words"],
        "$xyz$": ["xyz"], r"$\sin xy$": [r"\sin xy"], "$$x$ y$$": ["x$ y"], "$ $": [], }  # fmt: skip
    assert {text: [item.text for item in math_spans(text)] for text in spans} == spans
    for name in ("align", "align*", "equation", "gather", "eqnarray", "multline", "multline*"):
        text = rf"\begin{{{name}}}x = 5\end{{{name}}}"
        assert read_expression(f"So 3: {text}") == text
        assert [item.text for item in math_spans(f"$${text}$$")] == [text]
    assert math_spans(r"\begin{tabular}x\end{tabular}") == math_spans(r"\begin{align}x") == []


@pytest.mark.parametrize(
    ("sign", "names"),
    [
        ("mm", "millimeter millimetres"),
        ("cm", "centimeter centimetres"),
        ("m", "meter metres"),
        ("km", "kilometer kilometres"),
        ("in", "inch inches"),
        ("ft", "foot feet"),
        ("yd", "yard yards"),
        ("mi", "mile miles"),
        ("mg", "milligram"),
        ("g", "gram grammes"),
        ("kg", "kilogram kilo kilograms"),
        ("lb", "pound pounds lbs"),
        ("oz", "ounce ounces"),
        ("t", "ton tonne tonnes"),
        ("ml", "mL milliliter millilitres"),
        ("l", "L liter litres"),
        ("gal", "gallon gallons"),
        ("s", "sec second seconds"),
        ("min", "minute minutes mins"),
        ("h", "hr hrs hour hours"),
        ("day", "days Day"),
        ("week", "weeks"),
        ("month", "months"),
        ("yr", "year years"),
        ("m/s", "mps"),
        ("km/h", "kmh kph"),
        ("N", "newton newtons"),
        ("J", "joule joules"),
        ("kJ", "kilojoule"),
        ("W", "watt watts"),
        ("kW", "kilowatt"),
        ("V", "volt volts"),
        ("A", "amp ampere amperes"),
        ("Pa", "pascal"),
        ("kPa", "kilopascal"[:0] or "kPa"),
        ("Hz", "hertz"),
        ("K", "kelvin"),
        ("mol", "mole moles"),
        ("°C", "celsius Celsius"),
        ("°F", "fahrenheit Fahrenheit"),
        ("deg", "degree degrees °"),
        ("rad", "radian radians"),
        ("$", "dollar dollars usd USD"),
        ("¢", "cent cents"),
        ("€", "euro euros EUR eur"),
        ("£", "gbp GBP"),
        ("¥", "yen"),
        ("₹", "rupee rupees"),
        ("unit", "units"),
    ],
)
def test_names_of_units(sign: str, names: str) -> None:
    expected = canonical(sign)
    assert [name for name in names.split() if canonical(name) != expected
        or read_expression(f"So it is 5 {name}") is None] == []  # fmt: skip
    assert sign == "$" or [word for word in (rf"\text{{{sign}}}", rf"\mathrm{{ {sign} }}", f"{sign}.", rf"\,{sign}",
        f"~{sign}") if canonical(word) != expected] == []  # fmt: skip


def test_powers_and_quotients_of_units() -> None:
    same = {"ft^2": ["square feet", "sq ft", "sq. ft", "feet squared", "ft²", "ft ^ 2", r"\text{ft}^2", "square foot"],
        "m^3": ["cubic meters", "cu m", "cu. m", "meters cubed", "m³"], "km/h": ["km per hour", "kilometers per hour",
        "km / h", "kmh", r"\text{km}/\text{h}"], "°C": ["degrees Celsius", "degree celsius", "° C", r"^\circ C",
        r"\circ C"], "$": [r"\$", " $ "], "apple": ["apples", "Apples", "APPLE"], "red apple": ["red apples",
        "Red Apples"], "°F": ["degrees Fahrenheit", "° F"], }  # fmt: skip
    assert [(sign, text) for sign, texts in same.items() for text in texts if canonical(text) != canonical(sign)] == []
    assert len({canonical(sign) for sign in (*same, "ft^3", "ft", "m^2", "km/s", "°", "€", "pear")}) == len(same) + 7
