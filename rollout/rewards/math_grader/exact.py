"""Answers that are one number, exactly, with its sign, currency and percent sign, and the precision of a decimal."""

from __future__ import annotations

import re
from fractions import Fraction

from rollout.rewards.answers.numbers import parse_number
from rollout.rewards.answers.units import canonical
from rollout.rewards.math_grader.values import Number

_ORDINAL = re.compile(r"\^\s*\{\s*\\text\s*\{(?:st|nd|rd|th)\}\s*\}|\\text\s*\{\s*(?:st|nd|rd|th)\}|(?:st|nd|rd|th)\Z")
_CURRENCY = re.compile(r"([-+]?)\s*(?:US|CA|AU|A|C)?(\\?\$|€|£|¥|₹)\s*(-?)")
_BEHIND = re.compile(r"(?<=\d)\s*([€£¥₹])\Z")
_MARKED_PERIOD = re.compile(r"(-?)(\d*)\.(\d*)\s*\\(?:overline|bar|dot)\s*\{?(\d+)\}?")
_DOTS = (
    re.compile(r"(-?)(\d*)\.(\d*?)(\d{1,6}?)\4{2,}\s*\.{3}"),
    re.compile(r"(-?)(\d*)\.(\d*?)(\d{3,6})\4\s*\.{3}"),
)
_DECIMAL = re.compile(r"[-+]?\s*([0-9 ,']*)\.([0-9]+)(?![0-9.]*\s*/)")
MAX_CHARACTERS = 200


def as_number(text: str) -> Number | None:
    """The number that a cleaned text is, or None."""
    if len(text) > MAX_CHARACTERS:
        return None
    percent = text.rstrip("} ").endswith("%")
    bare = _ORDINAL.sub("", text.rstrip("% ")).rstrip()
    money = _CURRENCY.match(bare)
    unit = ""
    if money is not None:
        unit, bare = canonical(money[2]), money[1].replace("+", "") + money[3] + bare[money.end() :]
    elif (behind := _BEHIND.search(bare)) is not None:
        unit, bare = behind[1], bare[: behind.start()]
    while bare.startswith("--") or (bare.startswith("-(") and bare.endswith(")") and bare.count("(") == 1):
        bare = bare[2:] if bare.startswith("--") else "-" + bare[2:-1]
    repeating = _repeating(bare)
    if repeating is not None:
        return Number(repeating, percent=percent, unit=unit)
    value = parse_number("$" + bare if money else bare)
    return None if value is None else Number(value, *_precision(bare, value), percent=percent, unit=unit)


def _precision(text: str, value: Fraction) -> tuple[Fraction | None, int]:
    """A unit in the last place and the number of significant digits of a decimal; (None, 0) of anything else."""
    found = _DECIMAL.match(text)
    if found is None or value == 0:
        return None, 0
    whole = re.sub(r"\D", "", found[1])
    mantissa = Fraction(f"{whole or 0}.{found[2]}")
    return abs(value) / mantissa / 10 ** len(found[2]), len((whole + found[2]).lstrip("0"))


def _repeating(text: str) -> Fraction | None:
    r"""``0.\overline{3}``, ``0.1\dot{6}`` and ``0.333...`` exactly; of the last, three periods or two long ones."""
    found = _MARKED_PERIOD.fullmatch(text) or _DOTS[0].fullmatch(text) or _DOTS[1].fullmatch(text)
    if found is None:
        return None
    sign, whole, fixed, period = found.groups()
    before = int((whole or "0") + fixed)
    value = Fraction(before * 10 ** len(period) + int(period) - before, 10 ** len(fixed) * (10 ** len(period) - 1))
    return -value if sign else value
