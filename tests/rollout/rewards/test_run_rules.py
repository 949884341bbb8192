r"""Expressions among the words of a sentence: where one begins, what goes on without a sign, and where it ends.

What is cut short pays for a part: of "x = 2 + y" a reader that stops at the blank reads 2.
"""

from __future__ import annotations

from rollout.rewards.answers.runs import plain_runs
from rollout.rewards.answers.words import is_operand


def runs(text: str) -> list[str]:
    return [item.text for item in plain_runs(text, 0, len(text))]


def not_whole(texts: list[str]) -> list[tuple[str, list[str]]]:
    """The texts that are not read as one expression after "So", each with what is read."""
    return [(text, found) for text in texts if (found := runs(f"So {text} holds")) != [text]]


FUNCTIONS = (
    "arcsin arccos arctan sinh cosh tanh sin cos tan cot sec csc log ln exp sqrt cbrt abs max min gcd lcm".split()
)
GLUED = "+ - \u2212 \u2013 × · / ÷ = ≈ < > ≤ ≥ ≠ ^ ±".split()
COMMANDS = "times cdot div pm approx le leq ge geq ne neq".split()


def test_functions_and_their_arguments() -> None:
    whole = [f"y = {name} {argument}" for name in FUNCTIONS for argument in ("5", "x", "(x)", "x^2")]
    whole += [f"y = {name}(2 x)" for name in FUNCTIONS] + [rf"\{name} 2x" for name in FUNCTIONS]
    whole += [
        "log_2 8",
        "y = log_{2} 8",
        "sin^2 x + cos^2 x",
        "y = 2 sin x",
        "2 sin x",
        "2 cos 3",
        "y = x ln x",
        "y = 3log x",
    ]
    whole += ["y = 2 ln x + C", r"2 \sin x", r"x \sin x", "max (2)", "3max (2, 3)"]
    assert not_whole(whole) == []
    assert [name for name in FUNCTIONS if runs(f"the {name} 5 holds") != (
        ["5"] if name in ("sin", "max", "min", "sec", "abs") else [f"{name} 5"])] == []  # fmt: skip
    units = {name: runs(f"y = 5 {name} x = 6") for name in ("max", "min", "sec", "abs")}
    assert units == {"max": ["y = 5", "x = 6"], "min": ["y = 5 min", "x = 6"], "sec": ["y = 5 sec", "x = 6"],
        "abs": ["y = 5", "x = 6"]}  # fmt: skip
    assert runs("the sum a cos 5") == ["cos 5"] and runs("acos 5") == ["5"] and runs("see sines 5") == ["5"]


def test_products_without_a_sign() -> None:
    whole = [
        "2 x",
        "y = 2 x + 1",
        "y = m x + b",
        "E = m c^2",
        "V = 4/3 π r^3",
        "V = 4/3 π r³ = 36π",
        "2 π r",
        "2π r^2",
        "4 π",
    ]
    whole += [
        "3 (x + 1)",
        "x (x - 1)",
        "(x + 1) (x \u2212 2)",
        "y = 2 x (x + 1)",
        "3 √2",
        "3 θ",
        "2θ r",
        "2 e",
        "f = 2 a + 2 b",
    ]
    whole += [
        "x = 2 (mod 5)",
        "17 = 2 mod 5",
        "x^2 y = 3",
        r"5 \alpha",
        r"x = 2\, y",
        r"x = 2\; y",
        r"x = 2\: y",
        r"x = 2\! y",
    ]
    whole += ["x = 2\\ y", *(f"3 {letter}" for letter in "αβγλμσφωπθ"), "2 x'", "y = a b"]
    assert not_whole([text for text in whole if not text.endswith("a b")]) == [] and runs("y = a b") == ["y = a b"]
    apart = {
        "n = 5 a day": ["n = 5"], "n = 5 I think": ["n = 5"], "n = 5 a": ["n = 5 a"],
        "n = 5 a, as said": ["n = 5 a"], "x = 5 y = 6": ["x = 5", "y = 6"], "2 x = 6": ["2 x = 6"],
        "x = 5 yen": ["x = 5 yen"],
        "12 (3 + 9)": ["12", "(3 + 9)"], "5 (m)": ["5"], "5 (x = 5 + 0)": ["5", "(x = 5 + 0)"], "5 (m/s)": ["5"],
        "at x y": [], "see x 5": ["5"], "5 p.m.": ["5"], "5 xs": ["5"], "5 xY": ["5"], "1 000.% of": ["1", "000.%"],
        "It is 5 $6": ["5", "$6"], r"5 \$6": ["5",
        r"\$6"],
        r"5 \boxed{6}": ["5", r"\boxed{6}"], r"5 \fbox{6}": ["5", r"\fbox{6}"], "x = y = 2 z = 3": ["x = y = 2",
        "z = 3"],
        "y = x z = 3": ["y = x z = 3"], "60 km / 2 h = 30 km/h": ["60 km", "2 h", "30 km/h"],
        "area = 2 x + 1": ["2 x + 1"], "10 km × 2 t": ["10 km", "2 t"], "x = 5 z - 1": ["x = 5 z - 1"], "5 word": ["5"],
    }  # fmt: skip
    assert {text: runs(text) for text in apart} == apart


def test_signs_with_a_blank_on_one_side() -> None:
    assert not_whole([f"y{sign} 5" for sign in GLUED] + [f"y {sign}5" for sign in GLUED[4:-1]]) == []
    assert not_whole([f"x = 2 {sign}3" for sign in ("+", "-", "\u2212", "\u2013", "±")]) == []
    assert (
        not_whole([rf"2\{name} 3" for name in COMMANDS] + [rf"2 \{name} 3" for name in (*COMMANDS, "cup", "cap")]) == []
    )
    assert not_whole([f"2 {sign} 3" for sign in (":=", "==", "<=", ">=", ":", "x", "*", *GLUED)]) == []
    cases = {
        "from 5 -3": ["5", "-3"], "x= ": [], "3+4=": [], "x≈": [], "3 x 10^8": ["3 x 10^8"], "5 x 6 grid": ["5 x 6"],
        "a x 6": ["6"], "a_3 x 6": ["a_3 x 6"], "5 x y": ["5 x y"], "a : 6": ["6"], "5 : b": ["5"], "3: 4": ["3", "4"],
        "Step 3 : 5 + 6 = 11": ["5 + 6 = 11"],
        "x = - 5": ["x = - 5"], "x: - 5": ["- 5"], "x= - 5": ["x= - 5"], "Total : - 5": ["5"], "2 + - 3": ["2 + - 3"],
        "2 + * 3": ["2", "3"], "2 - + 3": ["2 - + 3"], "5 - word": ["5"], "word - 5": ["5"],
        "is - 5": ["- 5"], "IS - 5": ["- 5"], "= - 5": ["- 5"], "+ 5": ["5"], "× 5": ["5"], "x = ± 5": ["x = ± 5"],
    }  # fmt: skip
    assert {text: runs(text) for text in cases} == cases


def test_where_an_expression_ends() -> None:
    ends = {f"x = 5{stop} y = 6": ["x = 5", "y = 6"] for stop in ".,;:!?"}
    ends |= {
        "x = 5… y = 6": ["x = 5...", "y = 6"],
        "x = 5... y = 6": ["x = 5...", "y = 6"],
        "x = y... z = 6": ["x = y", "z = 6"],
    }
    ends |= {f"{one}x = 5{other}": ["x = 5"] for one, other in ("**", "__", '""', "``", "“”", "‘’", "«»", "’’", "””")}
    ends |= {
        "12:30 pm": ["12:30 pm"], "12:30am then": ["12:30am"], "12:30 P.M. then": ["12:30 P.M."],
        "12:30 amp": ["12:30 amp"],
        "5 am then": ["5"], "5:30\npm": ["5:30"], "negative 5": ["-5"], "NEGATIVE 5": ["-5"], "Minus  5": ["-5"],
        "nonminus 5": ["5"], "negatively 5": ["5"], "5 feet 4 inches 3 feet": ["5 feet 4 inches", "3 feet"],
        "x = 5 km.": ["x = 5 km"],
        "5 feet, 4 inches": ["5 feet", "4 inches"], "It is 5. feet": ["5"], "5°.": ["5°"], "5%, then": ["5%"],
        "5\nkm": ["5"], "see e": [], "see e'": [], "π": ["π"], "∞": ["∞"], "½": ["½"], "√x": ["√x"], "x^y": ["x^y"],
        "x=y": ["x=y"],
        r"\alpha": [r"\alpha"], "2e": ["2e"], "xy": [], "x/y": [], "ex": [], "5, e.g. so": ["5"], "a sec": [],
        "theta": [],
    }  # fmt: skip
    assert {text: runs(text) for text in ends} == ends


def test_groups_of_digits_and_fractions() -> None:
    whole = [f"{sign}1 000" for sign in ("", "-", "\u2212", "$", "€", "£", "¥", r"\$", "-$")]
    whole += [
        "12 345 678",
        "1 000 000",
        "1 000.5",
        "1 000%",
        "2 2/3",
        "-2 2/3",
        "\u22122 2/3",
        "2 2⁄3",
        "12 12/13",
        "123 000",
    ]
    assert not_whole(whole) == []
    apart = {"1234 000": ["1234", "000"], "1 00": ["1", "00"], "1 0000": ["1", "0000"], "1 000 2 000": ["1 000",
        "2 000"],
        "1.5 000": ["1.5", "000"], "x 000": ["000"], "x 2/3": ["2/3"], "2.5 2/3": ["2.5", "2/3"], "2 2/x": ["2", "2/x"],
        "5 + 000 111": ["5 + 000 111"], "5 + 1000 111": ["5 + 1000", "111"], "1 000.5 000": ["1 000.5 000"],
        "₹1 000": ["000"]}  # fmt: skip
    assert {text: runs(text) for text in apart} == apart


def test_brackets() -> None:
    cases = {
        "f(x, y) = 3": ["f(x, y) = 3"], "(1, 2)": ["(1, 2)"], "[1, 2)": ["[1, 2)"], "{1, 2}.": ["{1, 2}"],
        "((5)": ["(5)"],
        "(5))": ["(5)"], "[5": ["5"], "5]": ["5"], "{5": ["5"], "5}": ["5"], "((5": ["5"], "5))": ["5"],
        "(1, two)": ["1"],
        "(1, 2": ["1", "2"], "((1, 2), 3) + 4": ["((1, 2), 3) + 4"], "a (b c d) 3": ["3"],
        "(x = 5)": ["(x = 5)"], "(so x = 5)": ["x = 5"], "**(1, 2)**": ["(1, 2)"], "(1, 2), (3, 4)": ["(1, 2)",
        "(3, 4)"],
        "(5)(6)": ["(5)(6)"], "(" + "1, " * 40 + "1)": ["(" + "1, " * 40 + "1)"], "x = [1, 2] + 3": ["x = [1, 2] + 3"],
    }  # fmt: skip
    assert {text: runs(text) for text in cases} == cases
    assert len(runs("(" + "1, " * 41 + "1)")) == 42
    assert runs("word " * 120 + "(5") == ["5"] and runs("word " * 120 + "5)") == ["5"]


def test_labels_of_numbers() -> None:
    cases = {
        "Step 3": [], "Step 3 gives 5": ["5"], "Steps 3": [], "eq. 3": [], "STEP 3": [], "misstep 3": ["3"],
        "Stepwise 3": ["3"],
        "Step, 3": ["3"], "Step 3.5": ["3.5"], "Step 1234": ["1234"], "3. cats": [], "3) cats": [], "3: cats": ["3"],
        "3.": ["3"],
        "123. cats": [], "1234. cats": ["1234"], "see 3. cats": ["3"], "3 cats": ["3"], "2) x = 5": ["x = 5"],
        "-3. cats": ["-3"],
        "5 + 3. cats": ["5 + 3"], "\n3. cats": [], "Cats\n3. cats": [], "Step\n3": ["3"],
    }  # fmt: skip
    assert {text: runs(text) for text in cases} == cases
    assert [item.text for item in plain_runs("x 3. cats", 2, 9, in_line=True)] == ["3"]
    assert [item.text for item in plain_runs("x 3. cats", 2, 9)] == []
    assert [item.text for item in plain_runs("x\n3. cats", 0, 9, in_line=True)] == []


def test_what_is_mathematics() -> None:
    signs = ".,+-\u2212\u2013*/^_=()[]{}|!%°√∛π∞θαβγλμσφω²³⁰¹⁴⁵⁶⁷⁸⁹⁻⁺½¼¾⅓⅔⅛<>≤≥≠≈×·÷±$€£¥'′\\:⁄"
    assert [sign for sign in signs if not is_operand(f"2{sign}")] == []
    assert [
        word for word in ("2#", "2&", "2;", "2?", "2@", "2~", '2"', "+", "=", "", "...", "2" * 501) if is_operand(word)
    ] == []
    alone = "xAπ∞θαβγλμσφω½¼¾⅓⅔⅛"
    assert [sign for sign in alone if not is_operand(sign)] == [] and not is_operand("²") and not is_operand("°")
    good = ("2" * 500, "2abc", "x)ab", "2^ab", "{2}ab", r"5\text{ big apples}", r"5\mathrm{}", r"5\operatorname {cm}",
        r"5\textbf{cm}",
        r"\frac{1}{2}", r"2\,x", r"2\;x", r"2\:x", r"2\!x", "2\\ x", r"5\%", r"\$5", "3pi", "2theta", "25°Celsius",
        "25°Fahrenheit", "inf",
        "2infinity", "2lambda", "(1, 2)", "a\nb")  # fmt: skip
    assert [word for word in good if not is_operand(word)] == []
    bad = (
        "abc",
        "2abcd",
        "ab",
        "xab",
        "=ab",
        "5Celsius",
        "word(2)",
        "spin(2)",
        "sinx",
        "pin",
        "2picnic",
        r"\text{abc}d&",
        "(ab)",
    )
    assert [word for word in bad if is_operand(word)] == []
