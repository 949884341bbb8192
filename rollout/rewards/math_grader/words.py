"""Answers that are text: words, sequences of letters, dates, times, ranges, ratios, and names with digits in them."""

from __future__ import annotations

import re

from rollout.rewards.math_grader.values import Text

_LETTERS = re.compile(r"[^\W\d_]+(?:[' \-/&.]+[^\W\d_]+)*(?:\.|(?<=[^\W\d_]{3})!)?")
_CONSTANTS = frozenset("ei")
_TIME = re.compile(r"\d{1,4}(?:\s*:\s*\d+)+(?:\s*[ap]\.?\s?m\.?)?|\d{1,2}\s*[ap]\.?\s?m\.?", re.IGNORECASE)
_DATE_OR_RANGE = re.compile(
    r"\d+(?:\s*-+\s*\d+)+|\d+(?:[/.]\d+){2,}|\d+\s*(?:to|through)\s*\d+|\(?\d{3}\)?\s*-?\s*\d{3}\s*-\s*\d{4}",
    re.IGNORECASE,
)
_RANGE_WITH_UNIT = re.compile(r"(\d+\s*-+\s*\d+)\s+[A-Za-z]+")
_NAME_WITH_DIGITS = re.compile(
    r"[A-Za-z]+\d+[A-Za-z0-9-]*|\d+[A-Z][A-Za-z0-9-]*|[A-Za-z]+-\d+|(?:[A-Z][a-z]?(?:_\s?\{?\d+\}?)?){2,}"
)
_SPACES = re.compile(r"\\[,;: ]|~|\\q?quad|\s+")
_UPRIGHT = re.compile(r"\\text\s*\{([^{}]*)\}")


def plain(text: str) -> str:
    """Without the wrappers of upright text, all white space one blank."""
    return _SPACES.sub(" ", _UPRIGHT.sub(r"\1", text)).strip()


def text_of(text: str) -> str:
    """A text for comparison, without regard to case, white space and a full stop; one letter keeps its case."""
    found = plain(text.replace("$", "")).strip(" .!")
    found = found[1:-1] if re.fullmatch(r"\(\w\)", found) else found
    found = re.sub(r"\s*([-:/,+*=<>^_{}()\[\]])\s*", r"\1", found)
    return found if len(found) == 1 else " ".join(found.casefold().split())


def as_text(text: str) -> Text | None:
    """The text, if it is none of mathematics: ``ABD`` is no product, ``2031-02-05`` no difference, ``14:30`` no ratio.

    A small letter alone is a variable, and so are several with blanks between them.
    """
    bare = plain(text)
    inner = bare[1:-1] if re.fullmatch(r"\([A-Za-z]\)", bare) else bare
    if "\\" in inner or not inner:
        return None
    if " " in inner and all(len(word) == 1 and word.islower() for word in inner.split(" ")):
        return None
    if _LETTERS.fullmatch(inner) and inner not in _CONSTANTS and not re.search(r"\b(?:and|or)\b", inner):
        return Text(text_of(inner)) if len(inner) > 1 or bare != inner or inner.isupper() else None
    if _TIME.fullmatch(inner):
        return Text(re.sub(r"(?<!\d)0+(?=\d)|[\s.]", "", inner.casefold()))
    if _DATE_OR_RANGE.fullmatch(inner):
        return Text(re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"\s*-+\s*", "-", text_of(inner))))
    with_unit = _RANGE_WITH_UNIT.fullmatch(inner)
    if with_unit is not None:
        return as_text(with_unit[1])
    if _NAME_WITH_DIGITS.fullmatch(inner):
        return Text(re.sub(r"[\s_{}]", "", inner).casefold())
    return None
