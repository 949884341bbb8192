"""The words of a line of plain text, and which of them are mathematics."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_WORD = re.compile(r"\S+")
_NAME_BEFORE = re.compile(r"[A-Za-z]{2,}=(?!=)")
SIGNS = frozenset("+-*×·/÷=≈<>≤≥≠^±∪∩\u2212\u2013")
WORDED_SIGNS = re.compile(r":=|==|<=|>=|\\(?:times|cdot|div|pm|approx|leq?|geq?|neq?|cup|cap)|mod")
FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|cbrt|abs|max|min|gcd|lcm"
_NAMES = rf"{FUNCTIONS}|pi|theta|alpha|beta|gamma|lambda|infinity|inf|mod"
_NAME = re.compile(rf"(?<![A-Za-z])(?:{_NAMES}|(?<=°)(?:Celsius|Fahrenheit))(?![A-Za-z])")
_MATH_CHARACTERS = re.compile(
    r"[0-9A-Za-z.,+\-\u2212\u2013*/^_=()\[\]{}|!%°√∛π∞θαβγλμσφω²³⁰¹⁴⁵⁶⁷⁸⁹⁻⁺½¼¾⅓⅔⅛<>≤≥≠≈×·÷±$€£¥'′\\:⁄]+"
)
_COMMAND = re.compile(r"\\[A-Za-z]+|\\;")
_LETTERS = re.compile(r"[A-Za-z]+")
_OPENERS, _CLOSERS = "([{", ")]}"
_LEADING, _TRAILING = "*_\"'`“”‘’«", '*_"`“”’»'
_STOPS = ".,;:!?…"
_MAX_BRACKET_WORDS = 40
MAX_OPERAND = 500
"""Characters of the longest operand."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word without the marks around it.

    Attributes:
        stops: punctuation that ends the run here, or nothing.
    """

    start: int
    end: int
    text: str
    stops: str
    is_operator: bool
    is_operand: bool


def words_of(text: str, begin: int, end: int) -> Iterator[Word]:
    """The words of a line; what an open bracket holds together is one word."""
    at = begin
    while (match := _WORD.search(text, at, end)) is not None:
        start, stop = match.span()
        at = stop
        start, stop, stops = _stripped(text, start, stop)
        named = _NAME_BEFORE.match(text, start, stop - 1)  # cost=5
        start = start if named is None else named.end()
        if any(opener in text[start:stop] for opener in _OPENERS):
            whole = _to_closing(text, start, end)
            if whole is not None and whole > stop:
                joined = _stripped(text, start, _WORD.match(text, whole - 1, end).end())  # type: ignore[union-attr]
                if is_operand(text[joined[0] : joined[1]]):
                    start, stop, stops = joined
                    at = whole
        start, stop = _balanced(text, start, stop)
        content = text[start:stop]
        is_operator = content in SIGNS or WORDED_SIGNS.fullmatch(content) is not None
        yield Word(start, stop, content, stops, is_operator, not is_operator and is_operand(content))


def _stripped(text: str, start: int, stop: int) -> tuple[int, int, str]:
    """A word's place without quotes, markdown and punctuation; the first punctuation mark at its end."""
    if text[start:stop] in ("*", ":"):
        return start, stop, ""
    while start < stop and text[start] in _LEADING:
        start += 1
    stops = ""
    while start < stop and text[stop - 1] in _TRAILING + _STOPS and text[stop - 2 : stop - 1] != "\\":
        stops = text[stop - 1] if text[stop - 1] in _STOPS else stops
        stop -= 1
    return start, stop, stops


def _balanced(text: str, start: int, stop: int) -> tuple[int, int]:
    """A word's place without brackets at its ends that have no partner in it."""
    if stop - start > MAX_OPERAND:
        return start, stop
    excess = sum(text.count(mark, start, stop) for mark in _OPENERS) - sum(
        text.count(mark, start, stop) for mark in _CLOSERS
    )
    while excess < 0 and start < stop and text[stop - 1] in _CLOSERS:
        stop, excess = stop - 1, excess + 1
    while excess > 0 and start < stop and text[start] in _OPENERS:
        start, excess = start + 1, excess - 1
    return start, stop


def _to_closing(text: str, start: int, end: int) -> int | None:
    """Behind the bracket that closes the last one that is open, within few words; None if it stays open."""
    depth = words = 0
    for at in range(start, min(end, start + 400)):
        character = text[at]
        if character in _OPENERS:
            depth += 1
        elif character in _CLOSERS:
            depth -= 1
            if depth < 0:
                return None
        elif character.isspace():
            if depth == 0:
                return at
            words += 1
            if words > _MAX_BRACKET_WORDS:
                return None
    return end if depth == 0 else None


def is_operand(word: str) -> bool:
    """Whether a word is mathematics: a number, a single letter, or several with operators, functions and LaTeX."""
    if not word or len(word) > MAX_OPERAND:
        return False
    bare = re.sub(r"\\(?:text|mathrm|textbf|operatorname)\s*\{[^{}]*\}", "", word)
    bare = _COMMAND.sub(" ", bare)
    bare = _NAME.sub(" ", bare)
    if _MATH_CHARACTERS.fullmatch(bare.replace(" ", "").replace("\n", "") or "0") is None:
        return False
    for letters in _LETTERS.finditer(bare):
        before = bare[letters.start() - 1 : letters.start()] if letters.start() else ""
        if len(letters.group(0)) > 1 and not (
            len(letters.group(0)) <= 3 and (before.isdigit() or before in "^)}") and before
        ):
            return False
    return re.search(r"[0-9A-Za-zπ∞θαβγλμσφω½¼¾⅓⅔⅛]", word) is not None
