"""Expressions in plain text: runs of numbers, single letters, functions and operators among the words of a sentence."""

from __future__ import annotations

import re
from dataclasses import replace

from rollout.rewards.answers.spans import Item
from rollout.rewards.answers.units import UNIT_PHRASE
from rollout.rewards.answers.words import FUNCTIONS, SIGNS, Word, words_of

_SIGNS_BEFORE = frozenset({"+", "-", "\u2212", "\u2013", "±", "\\pm"})
"""Signs that an operand may begin with."""
_BETWEEN = frozenset("+*×·/÷")
_RELATIONS = frozenset({"=", "≈", ":=", "==", "\\approx"})
_APPLIED = re.compile(rf"(?:\\|(?<![A-Za-z]))(?:{FUNCTIONS})(?:[_^]\{{?\w+\}}?)?\Z")
_UNITS = frozenset({"max", "min", "sec", "abs"})
"""Functions whose names mean something else behind a number."""
_WORDS = _UNITS | {"sin"}
"""Functions whose names are words in a sentence."""
_FACTOR = re.compile(rf"(?:{FUNCTIONS})(?![A-Za-z])|[\\√πθαβγλμσφω]")
_SYMBOL = re.compile(r"[A-Za-z](?![A-Za-z.])")
_SUM_IN_BRACKETS = re.compile(r"\((?=[^=]*[A-Za-z])[^=]*[+\-\u2212][^=]*\)|\(mod\b")
_OPEN_END = re.compile(r"(?:[+\-\u2212\u2013×·/÷=≈<>≤≥≠^±]|\\(?:times|cdot|div|pm|approx|leq?|geq?|neq?)|\\[,;:! ]?)\Z")
"""What the next operand goes on from: a sign, or a blank of LaTeX."""
_GROUP = re.compile(r"[0-9]{3}(?:\.[0-9]+)?%?")
_FRACTION = re.compile(r"[0-9]+[/⁄][0-9]+")
_LABELS = re.compile(
    r"(?:step|equation|eq|part|case|example|figure|fig|table|line|method|question|problem|chapter|page|section|option|"
    r"theorem|lemma|rule|phase|day|round|attempt)s?\.?\Z",
    re.IGNORECASE,
)
_TWO_UNITS = re.compile(r"[0-9.,]+ [A-Za-z]+ [0-9.,]+ [A-Za-z]+")


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
    words = _with_joints(list(words_of(text, begin, end)))
    found: list[Item] = []
    run: list[Word] = []
    is_rest = False  # whether the run is what words have left of a longer one, as 2 in "60 km / 2 h = 30 km/h"
    for index, word in enumerate(words):
        previous = words[index - 1] if index else None
        following = words[index + 1] if index + 1 < len(words) else None
        if word.is_operator and not run and word.text not in _SIGNS_BEFORE:
            continue
        goes_on = not run or run[-1].is_operator or (word.is_operand and _belongs(run, word, following, is_rest))
        fits = word.is_operator or (word.is_operand and goes_on)
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
            is_rest = is_rest if run else previous is not None and previous.text in _BETWEEN
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


def _with_joints(words: list[Word]) -> list[Word]:
    """The words, with the x of ``3 x 10^8`` and the colon of ``3 : 4`` as operators."""
    for at in range(1, len(words) - 1):
        between_numbers = words[at - 1].text[-1:].isdigit() and words[at + 1].text[0:1].isdigit()
        if words[at].text in ("x", ":") and between_numbers:
            words[at] = replace(words[at], is_operator=True)
    return words


def _belongs(run: list[Word], word: Word, following: Word | None, is_rest: bool) -> bool:
    """Whether an operand goes on from the one before it without an operator."""
    last, in_chain = run[-1].text, len(run) > 1
    if word.text.startswith(("\\$", "\\boxed", "\\fbox")):
        return False
    if _OPEN_END.search(last) or word.text[0] in SIGNS - _SIGNS_BEFORE or (in_chain and word.text[0] in _SIGNS_BEFORE):
        return True  # x= 5, x =5, x = 2 +3
    function = _APPLIED.search(last)
    if function is not None:  # \sin 2x, log 8 and max (2), but no word such as max before a number
        return function.group(0) not in _WORDS or in_chain or word.text.startswith("(")
    return (not is_rest and _is_factor(run, word, following)) or _is_group(run, word)


def _is_factor(run: list[Word], word: Word, following: Word | None) -> bool:
    """Whether the operand is a factor of the product that the run ends with: ``2 x``, ``3 (x + 1)``, ``2 cos x``."""
    last, in_chain = run[-1].text, len(run) > 1
    if _SUM_IN_BRACKETS.match(word.text):
        return True
    factor = _FACTOR.match(word.text)
    if factor is not None:
        is_sign = len(factor.group(0)) == 1
        return is_sign or (factor.group(0) not in _UNITS and (in_chain or last[-1].isdigit()))
    if _SYMBOL.match(word.text) is None or _is_apart(run, word, following):
        return False
    return last[-1].isdigit() or last[-1] in "πθ" or (in_chain and _SYMBOL.fullmatch(last) is not None)


def _is_apart(run: list[Word], word: Word, following: Word | None) -> bool:
    """Whether a letter behind a number is a word, as in ``5 a day``, or begins an equation, as in ``x = 5 y = 6``."""
    if following is None or word.stops:
        return False
    if not following.is_operator:
        return word.text in ("a", "A", "I")
    is_equation = following.text in _RELATIONS and any(part.text in _RELATIONS for part in run)
    return is_equation and run[-1].text[-1].isdigit() and len(word.text) == 1


def _is_group(run: list[Word], word: Word) -> bool:
    """Whether the operand is the fraction of ``2 2/3`` or three more digits of ``1 000``."""
    last = run[-1].text
    if _FRACTION.fullmatch(word.text) and re.fullmatch(r"[-\u2212]?[0-9]+", last):
        return True
    starts_group = re.fullmatch(r"[-\u2212]?(?:[$€£¥]|\\\$)?[0-9]{1,3}", last) is not None
    goes_on = len(run) > 1 and _GROUP.fullmatch(last) is not None and not run[-2].is_operator
    return _GROUP.fullmatch(word.text) is not None and (starts_group or goes_on)


def _is_signed(previous: Word | None) -> bool:
    """Whether a dash that begins a run is a sign: after a verb, ``=`` or a colon, but not after another word."""
    return previous is not None and (
        previous.text.lower() in ("is", "are", "be", "equals", "≈", "of", "to")
        or previous.text.endswith("=")
        or previous.stops == ":"
    )


def _is_label(text: str, word: Word, previous: Word | None, is_first: bool, num_words: int) -> bool:
    """Whether a number only names something: ``Step 3``, or ``2.`` or ``2)`` at the start of a line."""
    if not re.fullmatch(r"[0-9]{1,3}", word.text):
        return False
    if previous is None:
        return is_first and num_words > 1 and (word.stops == "." or text.startswith(")", word.end))
    return previous.stops in ("", ".") and _LABELS.match(previous.text) is not None


def _finished(text: str, run: list[Word], end: int) -> list[Item]:
    """The run as an item, if it is one: not a lone letter, and not a question such as ``3 + 4 =``."""
    while run and run[-1].is_operator:
        if run[-1].text in _RELATIONS:
            return []
        run = run[:-1]
    if not run or run[-1].text[-1] in "=≈":
        return []
    start, stop = run[0].start, run[-1].end
    content = text[start:stop]
    if len(run) == 1 and not re.search(r"[0-9\\π∞½¼¾⅓⅔⅛√=^]", content):
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
