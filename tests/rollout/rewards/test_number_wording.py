"""Numbers in the many ways in which they are written, and words next to them that make them other numbers, or none."""

from __future__ import annotations

from fractions import Fraction

import pytest

from rollout.rewards.answers.numbers import last_number, only_number, parse_number

BLANKS = (" ", "\u00a0", "\u2009", "\u202f", r"\,", r"\;", r"\:", "\\ ", "~")
COMMAS = (",", "{,}", r"\!,", r",\!", "'")
VULGAR = "½ 1/2 ⅓ 1/3 ⅔ 2/3 ¼ 1/4 ¾ 3/4 ⅕ 1/5 ⅖ 2/5 ⅗ 3/5 ⅘ 4/5 ⅙ 1/6 ⅚ 5/6 ⅛ 1/8 ⅜ 3/8 ⅝ 5/8 ⅞ 7/8".split()


def values(texts: list[str]) -> set[Fraction | None]:
    return {parse_number(text) for text in texts}


def test_thousands() -> None:
    for mark in (*BLANKS, *COMMAS):
        assert parse_number(f"12{mark}345{mark}678.5") == Fraction("12345678.5"), mark
        assert only_number(f"about 1{mark}000 people") == 1000, mark
        assert last_number(f"There are 12{mark}345 people") == f"12{mark}345", mark
    assert values(["1,00", "1,0000", "1,000,00", "1 00", ",100", "1,,000", "1234,567"]) == {None}


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (
            "7",
            [
                "7",
                "+7",
                " 7 ",
                "7.",
                "**7**",
                "7.0",
                "007",
                "$7$",
                r"\(7\)",
                "7e0",
                "14/2",
                r"\frac{14}{2}",
                "7^1",
                r"$\frac{14}{2}$",
            ],
        ),
        (
            "-7",
            [
                "-7",
                "- 7",
                "\u22127",
                "-7.0",
                "-$7",
                "$-7",
                "\u2212$7",
                "$\u22127",
                "-7e0",
                r"-\frac{14}{2}",
                r"\frac{-14}{2}",
            ],
        ),
        (
            "1/2",
            [
                ".5",
                "0.5",
                "1/2",
                "1⁄2",
                "1 / 2",
                r"\frac12",
                r"\frac{1}{2}",
                r"\dfrac{1}{2}",
                r"\tfrac{1}{2}",
                r"\cfrac{1}{2}",
            ],
        ),
        ("5/2", ["2 1/2", "2½", "2 ½", r"2\frac{1}{2}", r"2 \frac12", "2.5", "5/2", "$2.50", "2 1⁄2"]),
        ("-5/2", ["-2 1/2", "-2½", r"-2\frac{1}{2}", "-$2.50"]),
        (
            "1500",
            [
                "1.5e3",
                "1.5E3",
                "1.5e+3",
                "1.5 × 10^3",
                "1.5·10^3",
                "1.5*10^3",
                "1.5x10^3",
                r"1.5\times10^{3}",
                r"1.5 \cdot 10^3",
            ],
        ),
        (
            "1500",
            [
                "1.5 × 10³",
                "1.5 thousand",
                "$1.5k",
                "1.5k",
                "$1,500",
                "15 hundred",
                "1500.",
                "1.5 × 10^{ 3 }",
                "1.5 THOUSAND",
            ],
        ),
        (
            "3/2000",
            [
                "1.5e-3",
                "1.5 × 10^-3",
                "1.5 × 10^{-3}",
                "1.5 × 10⁻³",
                "1.5 × 10^\u22123",
                "1.5 × 10^{\u22123}",
                "0.0015",
                ".0015",
            ],
        ),
        ("1024", ["2^10", "2^{10}", "2¹⁰", "2 ^ 10", "2^{ 10 }"]),
        (
            "1/8",
            [
                "2^-3",
                "2^{-3}",
                "2⁻³",
                "2^\u22123",
                "2^{\u22123}",
                "0.125",
                "12.5%",
                r"12.5\%",
                "12.5 %",
                "12.5 percent",
                "12.5 per cent",
            ],
        ),
        ("5000000", ["5 million", "5 Million", "$5 m", "$5m", "$5 mn", "5mn", "€5 million", "5,000,000"]),
        ("5000000000", ["5 billion", "$5 b", "$5 bn", "5bn"]),
        ("5000000000000", ["5 trillion"]),
        (
            "12",
            [
                "$12",
                r"\$12",
                "US$12",
                "CA$12",
                "AU$12",
                "A$12",
                "C$12",
                "€12",
                "£12",
                "¥12",
                "₹12",
                "12€",
                "12 £",
                "12 ¥",
                "12₹",
                "$ 12",
            ],
        ),
        ("3/4", ["1.5/2", "3/4", "0.75", "75%", r"\frac34", r"\frac 34", r"\frac { 3 } { 4 }", "¾"]),
        ("0", ["0", "-0", "0.0", "0/5", "0^2", "$0", "0%"]),
    ],
)
def test_one_value_in_many_ways(value: str, texts: list[str]) -> None:
    assert [text for text in texts if parse_number(text) != Fraction(value)] == []


def test_fraction_signs() -> None:
    for sign, value in zip(VULGAR[::2], VULGAR[1::2], strict=True):
        assert parse_number(sign) == Fraction(value)
        assert parse_number(f"2{sign}") == 2 + Fraction(value)
        assert last_number(f"It needs 2{sign} cups") == f"2{sign}"


def test_what_is_no_number() -> None:
    texts = ["", " ", ".", "five", "5 6", "5 6 7", "--5", "-$-5", "3/0", r"\frac{1}{0}", r"\frac10", "0^0", "0^-1",
        "2^0.5", "5 k", "5 m", "5m", "5 b"]  # fmt: skip
    texts += ["300 K", "5K", "5M", "1e1000", "1 × 10^1000", "1e99999", r"2\frac{-1}{2}", "1/2/3", "5 million^2", "$$",
        "$", "5$5", "5 apples", "x"]  # fmt: skip
    texts += ["1234567890^2", "1" * 1001, "(5)", "5-6", "5%%", "1.5.2", "½½", "12:30"]
    assert [text for text in texts if parse_number(text) is not None] == []
    assert parse_number("1" * 1000) == int("1" * 1000)
    assert parse_number("1e999") == 10**999 and parse_number("1e-999") == Fraction(1, 10**999)
    assert parse_number("123456789^2") == 123456789**2


DOUBTS = (
    "or and not no nor more less fewer than over under above below between to from plus minus times by of if unless "
    "maybe perhaps unclear unknown least most wrong but except half twice double dozen squared cubed < > ≤ ≥ ≠ ± + * "
    "× ÷ = ? | isn't"
).split()


def test_one_number_among_words() -> None:
    assert [word for word in DOUBTS if only_number(f"5 {word} that") is not None] == []
    assert [word for word in DOUBTS if only_number(f"{word.upper()} 5 apples") is not None] == []
    right = ["5 apples", "about 5 km/h", "5 cm^2", "5 m^{3}", "5 cm ^2", r"\text{5} apples", r"\boxed{5}",
        r"\textbf{5} km", "**5** apples", r"\mathrm{5} cm"]  # fmt: skip
    right += [r"\fbox{5} km", "5 degrees", "roughly $5", "5 dollars", "She has 5", "5 of"[:1], "the 5th", "5 kg of"[:4]]
    assert [text for text in right if only_number(text) != 5] == []
    none = ["5 H2O molecules", "5 x^4", "5 6", "apples", "5 apples, 6 pears", "5 (see page 7)", "5:30 o'clock",
        "2024-05-17 it was", "5x", "H2O", "{5 apples", "a" * 101 + " 5"]  # fmt: skip
    assert [text for text in none if only_number(text) is not None] == []


UNITS = (
    "st nd rd th m km cm mm nm Gm g kg mg l ml L W kW kWh V J N A Hz Pa mph kph h hr hrs s min mins ft in lb lbs oz "
    "yd mi C F K px pt pts year years day days hour hours minute minutes second seconds"
).split()


def test_the_last_number_and_what_is_glued_to_it() -> None:
    assert [unit for unit in UNITS if last_number(f"First 3, then 5{unit}.") != "5"] == []
    names = ("5x", "3D", "5xy", "x5", "x_5", "x^5", "x_{5}", "H2O", "B12", "5kx", "5_a", "7^x")
    assert [name for name in names if last_number(f"First 3, then {name}.") != "3"] == []
    skipped = "2024-05-17 1.2.3 192.168.0.1 14:30 3:4 3:16 1/2/2024 5-6-7 17.05.2024 12:05:30".split()
    skipped += ["3 : 4", "1\u20132\u20133"]
    assert [text for text in skipped if last_number(f"First 9, then {text}") != "9"] == []
    whole = ("1.5", "1,250", "3/4", "2 3/4", "5%", "5 percent", "3 million", r"\frac{3}{4}", r"2\frac{3}{4}",
        "1.6e-19", "2^3", "¾", "1.5 × 10^3", "5€")  # fmt: skip
    assert [text for text in whole if last_number(f"First 9, then {text}") != text] == []


def test_the_sign_of_the_last_number() -> None:
    verbs = "is are was be equals of to about approximately at get give gives".split()
    negative = [f"It {verb} - 5" for verb in verbs] + [f"x {sign} - 5" for sign in "=:≈<>"] + [f"x {sign} -5"
        for sign in "=:≈<>("]  # fmt: skip
    negative += ["It fell to negative 5", "It is minus 5", "It is \u22125", "It is \u20135", "x=-5", "(-5)", "a, -5",
        "10 negative 5", "It is NEGATIVE 5"]  # fmt: skip
    assert [text for text in negative if last_number(text) != "-5"] == []
    positive = ["10 - 5", "10 -5", "10-5", "a-5", "(3) - 5", "[3]-5", "{3}-5", "3%-5", "10 minus 5", "(3) minus 5",
        "item - 5", "- 5", "A - 5", "5"]  # fmt: skip
    assert [text for text in positive if last_number(text) != "5"] == []
    money = {"It is -$5": "-$5", "It is $-5": "-$5", "It is -€ 5": "-€5", "It costs US$5": "US$5",
        "It costs \\$5": "\\$5", "It is - £5": "-£5", "$3-$5": "$5"}  # fmt: skip
    assert {text: last_number(text) for text in money} == money
    scales = {"He has $5 m": "$5 m", "He ran 5 m": "5", "He has 5k": "5k", "At 300 K": "300",
        "He has 5 million": "5 million", "He ran 5 k": "5"}  # fmt: skip
    assert {text: last_number(text) for text in scales} == scales
