"""Where a response says that something is its answer: boxes, answer tags, and phrases such as "the answer is"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])\s*")
_BARE = re.compile(r"[^\s$.,;\\]*")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BETWEEN = re.compile(
    r"(?:[\s$,;{}*]|\\[()\[\],;: ]|\\(?:q?quad|text|mathrm)|\b(?:and|or)\b|[a-z](?:_\{?\w\}?)?\s*=)*+", re.IGNORECASE
)
_PARTED = re.compile(r"(?<!\\)[,;]|and|or", re.IGNORECASE)
_TAG = re.compile(r"<\s*(/?)\s*(?:final[_ ]?)?answer\s*>|\[\s*(/?)\s*answer\s*\]", re.IGNORECASE)
_PLACEHOLDER = re.compile(
    r"(?:\s|\.|\\l?dots|…|_|\?|(?:\\text\s*\{)?\s*(?:your |the |final )*answer\s*\}?)*", re.IGNORECASE
)


REACH = 600
"""Characters after a phrase that may hold its answer."""
MAX_PHRASES = 64
"""Phrases of a response that are looked at, from the last one."""
REGRET_REACH = 120
"""Characters before a correction that must have a word of regret in them."""


class ClaimKind(StrEnum):
    """How an answer is marked."""

    BOX = "box"
    TAG = "tag"
    PHRASE = "phrase"


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that a response gives as its answer.

    Attributes:
        start, end: where it stands, its mark included.
        content: what is inside a box or tag, or what follows a phrase.
        marked: whether a phrase ends with a colon or the like, so that nothing but the answer may follow.
    """

    kind: ClaimKind
    start: int
    end: int
    content: str
    marked: bool = True


def boxed(text: str) -> list[Claim]:
    r"""The contents of ``\boxed{}`` and ``\fbox{}``, outermost ones only, those that are lists put together.

    Boxes that only a comma, "and" or "or" parts (with ``x =`` before them) are one list. Empty ones, and those with
    dots or the word answer in them, are talked about rather than filled in, and left out. One that is not closed ends
    with its line.
    """
    groups: list[list[Claim]] = []
    for box in _single_boxes(text):
        if groups and _continues(text[groups[-1][-1].end : box.start]):
            groups[-1].append(box)
        else:
            groups.append([box])
    return [_together(group) for group in groups]


def _single_boxes(text: str) -> Iterator[Claim]:
    closing: dict[int, int] | None = None
    end = 0
    for match in _BOX.finditer(text):
        if match.start() < end:  # inside of another one
            continue
        at = match.end()
        if text[at : at + 1] == "{":
            closing = _closing_braces(text) if closing is None else closing
            last = closing.get(at)
            if last is None:
                last = text.find("\n", at) if "\n" in text[at:] else len(text)
                content = text[at + 1 : last].rstrip(" .$\r").removesuffix("\\]").removesuffix("\\)").rstrip(" .$")
            else:
                content = text[at + 1 : last]
            end = min(last + 1, len(text))
        else:
            content = _BARE.match(text, at).group(0)  # type: ignore[union-attr]
            end = at + len(content)
        if not _PLACEHOLDER.fullmatch(content):
            yield Claim(ClaimKind.BOX, match.start(), end, content.strip())


def _closing_braces(text: str) -> dict[int, int]:
    """Position of each opening brace that is closed: that of the closing one. Escaped braces do not count."""
    opened: list[int] = []
    found = {}
    for match in _BRACE.finditer(text):
        if match.group(0) == "{":
            opened.append(match.start())
        elif match.group(0) == "}" and opened:
            found[opened.pop()] = match.start()
    return found


def _continues(between: str) -> bool:
    """Whether what stands between two boxes makes them a list."""
    return len(between) < 60 and _BETWEEN.fullmatch(between) is not None and _PARTED.search(between) is not None


def _together(group: list[Claim]) -> Claim:
    contents = list(dict.fromkeys(box.content for box in group))
    return Claim(ClaimKind.BOX, group[0].start, group[-1].end, ", ".join(contents))


def tagged(text: str) -> list[Claim]:
    """The contents of ``<answer>`` tags. An unclosed one reaches to the end: its end is a usual stop string."""
    found, opened = [], None
    for match in _TAG.finditer(text):
        if not (match[1] or match[2]):
            opened = match
        elif opened is not None:
            found.append(Claim(ClaimKind.TAG, opened.start(), match.end(), text[opened.end() : match.start()].strip()))
            opened = None
    if opened is not None:
        found.append(Claim(ClaimKind.TAG, opened.start(), len(text), text[opened.end() :].strip()))
    return found


_NOUN = r"(?:answers?|solutions?|results?)"
_PHRASE = re.compile(
    rf"(?<![a-z])(?P<noun>{_NOUN})[*_`\"']*+(?:\s+(?:to|for|of|here|in)\b[^.\n:=?!]{{0,80}}?)??"
    r"(?:\s*(?P<verb>\b(?:is|are|was|would be|will be|should be|must be|equals|becomes|comes out to|remains)\b)"
    r"|\s*(?:[:=\u2192]|-+>|\\(?:to|rightarrow)\b))",
    re.IGNORECASE,
)
_CORRECTED = re.compile(r"\b(?:(?:should|must)\s+(?:be|have been)|is actually|i\s+meant?|make that)\b", re.IGNORECASE)
_REGRET = re.compile(r"\b(?:wait|wrong|mistake|error|sorry|oops|correction|incorrect|slip|no)\b", re.IGNORECASE)
_GSM = re.compile(r"^#{4,}", re.MULTILINE)


def phrases(text: str) -> list[Claim]:
    """What follows ``the answer is``, ``answer:`` and the like, and ``####`` of GSM8K: :data:`REACH` characters.

    So does what follows ``it should be`` soon after a word of regret, as in ``Wait, that is wrong, it should be 13``.
    """
    found = []
    for match in _PHRASE.finditer(text):
        if match["noun"].lower() not in ("answer", "answers") and match["verb"] is None:
            continue  # "Solution:" is a heading
        found.append(_phrase(text, match))
    for match in _CORRECTED.finditer(text):
        if _REGRET.search(text, max(0, match.start() - REGRET_REACH), match.start()):
            found.append(_phrase(text, match))
    found += [_phrase(text, match) for match in _GSM.finditer(text)]
    return sorted(found, key=lambda claim: claim.start)


def _phrase(text: str, match: re.Match[str]) -> Claim:
    return Claim(ClaimKind.PHRASE, match.start(), match.end(), text[match.end() : match.end() + REACH])
