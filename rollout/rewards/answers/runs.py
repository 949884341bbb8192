"""Expressions in plain text: runs of numbers, single letters, functions and operators among the words of a sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from rollout.rewards.answers.spans import Item
from rollout.rewards.answers.units import UNIT_PHRASE

_WORD = re.compile(r"\S+")
_SIGNS = frozenset("+-*×·/÷=≈<>≤≥≠^±∪∩\u2212\u2013")
_WORDED_SIGNS = re.compile(r":=|==|<=|>=|\\(?:times|cdot|div|pm|approx|leq?|geq?|neq?|cup|cap)")
_SIGNS_BEFORE = frozenset({"+", "-", "\u2212", "\u2013", "±", "\\pm"})
"""Signs that an operand may begin with."""
_RELATIONS = frozenset({"=", "≈", ":=", "==", "\\approx"})
_FUNCTIONS = "arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp|sqrt|cbrt|abs|max|min|gcd|lcm"
_NAMES = rf"{_FUNCTIONS}|pi|theta|alpha|beta|gamma|lambda|infinity|inf|mod"
_APPLIED = re.compile(rf"\\(?:{_FUNCTIONS})\Z|(?<![A-Za-z])(?:{_FUNCTIONS})\Z")
_NAME = re.compile(rf"(?<![A-Za-z])(?:{_NAMES}|(?<=°)(?:Celsius|Fahrenheit))(?![A-Za-z])")
_MATH_CHARACTERS = re.compile(
    r"[0-9A-Za-z.,+\-\u2212\u2013*/^_=()\[\]{}|!%°√∛π∞θαβγλμσφω²³⁰¹⁴⁵⁶⁷⁸⁹⁻⁺½¼¾⅓⅔⅛<>≤≥≠≈×·÷±$€£¥'′\\:⁄]+"
)
_COMMAND = re.compile(r"\\[A-Za-z]+|\\[,;:! %$]")
_LETTERS = re.compile(r"[A-Za-z]+")
_GROUP = re.compile(r"[0-9]{3}(?:\.[0-9]+)?%?")
_FRACTION = re.compile(r"[0-9]+[/⁄][0-9]+")
_LABELS = re.compile(
    r"(?:step|equation|eq|part|case|example|figure|fig|table|line|method|question|problem|chapter|page|section|option|"
    r"theorem|lemma|rule|phase|day|round|attempt)s?\.?\Z",
    re.IGNORECASE,
)
_TWO_UNITS = re.compile(r"[0-9.,]+ [A-Za-z]+ [0-9.,]+ [A-Za-z]+")
_OPENERS, _CLOSERS = "([{", ")]}"
_LEADING, _TRAILING = "*_\"'`“”‘’«", '*_"`“”’»'
_STOPS = ".,;:!?…"
_MAX_BRACKET_WORDS = 40
MAX_OPERAND = 500
"""Characters of the longest operand."""


@dataclass(frozen=True, slots=True)
class _Word:
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


def plain_runs(text: str, begin: int, end: int, in_line: bool = False) -> list[Item]:
    """The expressions in ``text[begin:end]``, each with its unit, in order. Lines are read one by one.

    Args:
        in_line: whether something stands before ``begin`` in its line.
    """
    found: list[Item] = []
    at = begin
    for line in text[begin:end].splitlines(keepends=True):
        found += _runs_of_line(text, at, at + len(line), at > begin or not in_line)
        at += len(line)
    return found


def _runs_of_line(text: str, begin: int, end: int, is_start: bool) -> list[Item]:
    """The runs of one line: operands that operators join, or that belong together as ``2 2/3`` and ``1 000`` do."""
    words = _with_times(list(_words(text, begin, end)))
    found: list[Item] = []
    run: list[_Word] = []
    for index, word in enumerate(words):
        previous = words[index - 1] if index else None
        if word.is_operator and not run and word.text not in _SIGNS_BEFORE:
            continue
        fits = word.is_operator or (word.is_operand and (not run or run[-1].is_operator or _belongs(run, word)))
        if not fits or (word.is_operator and run and run[-1].is_operator and word.text not in _SIGNS_BEFORE):
            found += _finished(text, run, end)
            run = []
            if found and word.start < found[-1].end:  # its unit
                continue
        if word.is_operator and not run and not _is_signed(previous):
            continue
        if (word.is_operator or word.is_operand) and not (
            not run and _is_label(text, word, previous, is_start and index == 0, len(words))
        ):
            run.append(word)
        if word.stops:
            found += _finished(text, run, end)
            run = []
    return _merged(text, found + _finished(text, run, end))


def _merged(text: str, items: list[Item]) -> list[Item]:
    """The items, with lengths and the like in two units, such as ``5 feet 4 inches``, as one."""
    found: list[Item] = []
    for item in items:
        last = found[-1] if found else None
        in_units = (
            last is not None and text[last.end : item.start] == " " and _TWO_UNITS.fullmatch(f"{last.text} {item.text}")
        )
        if last is not None and in_units:
            found[-1] = Item(last.start, item.end, f"{last.text} {item.text}")
        else:
            found.append(item)
    return found


def _with_times(words: list[_Word]) -> list[_Word]:
    """The words, with the x of ``3 x 10^8`` as an operator."""
    for at in range(1, len(words) - 1):
        if words[at].text == "x" and words[at + 1].text.startswith("10") and words[at - 1].text[-1:].isdigit():
            words[at] = replace(words[at], is_operator=True, is_operand=False)
    return words


def _belongs(run: list[_Word], word: _Word) -> bool:
    """Whether an operand goes on from the one before it without an operator."""
    last = run[-1].text
    function = _APPLIED.search(last)
    if function is not None and (function.group(0).startswith("\\") or word.text.startswith("(")):
        return True  # \sin 2x and sin (2), but no word such as max before a number
    if word.text.startswith(("\\", "√")) or last.endswith(("\\,", "\\ ")):
        return not word.text.startswith(("\\$", "\\boxed", "\\fbox"))
    if _FRACTION.fullmatch(word.text) and re.fullmatch(r"[-\u2212]?[0-9]+", last):
        return True
    starts_group = re.fullmatch(r"[-\u2212]?(?:[$€£¥]|\\\$)?[0-9]{1,3}", last) is not None
    goes_on = len(run) > 1 and _GROUP.fullmatch(last) is not None and not run[-2].is_operator
    return _GROUP.fullmatch(word.text) is not None and (starts_group or goes_on)


def _is_signed(previous: _Word | None) -> bool:
    """Whether a dash that begins a run is a sign: after a verb or ``=``, not at the start of a line or after a word."""
    return previous is not None and (
        previous.text.lower() in ("is", "are", "be", "equals", "=", "≈", "of", "to")
        or previous.text.endswith(("=", ":"))
    )


def _is_label(text: str, word: _Word, previous: _Word | None, is_first: bool, num_words: int) -> bool:
    """Whether a number only names something: ``Step 3``, or ``2.`` or ``2)`` at the start of a line."""
    if not re.fullmatch(r"[0-9]{1,3}", word.text):
        return False
    if previous is None:
        return is_first and num_words > 1 and (word.stops == "." or text.startswith(")", word.end))
    return previous.stops in ("", ".") and _LABELS.match(previous.text) is not None


def _finished(text: str, run: list[_Word], end: int) -> list[Item]:
    """The run as an item, if it is one: not a lone letter, and not a question such as ``3 + 4 =``."""
    while run and run[-1].is_operator:
        if run[-1].text in _RELATIONS:
            return []
        run = run[:-1]
    if not run:
        return []
    start, stop = run[0].start, run[-1].end
    content = text[start:stop]
    is_letter = re.fullmatch(r"[A-Za-z]'?", content) is not None
    if len(run) == 1 and (is_letter or not re.search(r"[0-9\\πe∞½¼¾⅓⅔⅛√=^]", content)):
        return []
    dots = re.match(r"\.{3}|…", text[stop : stop + 3])
    if dots is not None and content[-1].isdigit():
        return [Item(start, stop + dots.end(), content + "...")]
    half = re.compile(r"\s*[ap]\.?m\b\.?", re.IGNORECASE).match(text, stop, end) if ":" in content else None
    if half is not None:
        return [Item(start, half.end(), content + half.group(0))]
    negated = re.search(r"\b(?:negative|minus)\s+\Z", text[max(0, start - 12) : start], re.IGNORECASE)
    if not run[-1].stops or text[stop : stop + 1] in ("%", "°"):
        unit = UNIT_PHRASE.match(text, stop, end)
        if unit is not None:
            content, stop = f"{content} {unit.group(0).strip()}", unit.end()
    return [Item(start, stop, ("-" if negated else "") + content)]


def _words(text: str, begin: int, end: int) -> Iterator[_Word]:
    """The words of a line; what an open bracket holds together is one word."""
    at = begin
    while (match := _WORD.search(text, at, end)) is not None:
        start, stop = match.span()
        at = stop
        start, stop, stops = _stripped(text, start, stop)
        if any(opener in text[start:stop] for opener in _OPENERS):
            whole = _to_closing(text, start, end)
            if whole is not None and whole > stop:
                joined = _stripped(text, start, _WORD.match(text, whole - 1, end).end())  # type: ignore[union-attr]
                if is_operand(text[joined[0] : joined[1]]):
                    start, stop, stops = joined
                    at = whole
        start, stop = _balanced(text, start, stop)
        content = text[start:stop]
        is_operator = content in _SIGNS or _WORDED_SIGNS.fullmatch(content) is not None
        yield _Word(start, stop, content, stops, is_operator, not is_operator and is_operand(content))


def _stripped(text: str, start: int, stop: int) -> tuple[int, int, str]:
    """A word's place without quotes, markdown and punctuation; the first punctuation mark at its end."""
    if text[start:stop] == "*":
        return start, stop, ""
    while start < stop and text[start] in _LEADING:
        start += 1
    stops = ""
    while start < stop and (text[stop - 1] in _TRAILING or text[stop - 1] in _STOPS):
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
