"""Finding and splitting what stands outside of all brackets of a cleaned expression."""

from __future__ import annotations

import re

_BRACKET = re.compile(r"\\[{}]|\\(?:begin|end)\{|\\[lr]angle(?![A-Za-z])|[()\[\]{}]")
_DEPTH = {
    "(": 1,
    "[": 1,
    "{": 1,
    "\\{": 1,
    "\\langle": 1,
    "\\begin{": 2,
    ")": -1,
    "]": -1,
    "}": -1,
    "\\}": -1,
    "\\rangle": -1,
}
"""What a mark adds to the depth. The name of an environment stands in braces: its begin counts twice, its end not."""


def outside(text: str, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    """Matches outside of all brackets and environments."""
    brackets = iter(_BRACKET.finditer(text))
    bracket = next(brackets, None)
    depth, found = 0, []
    for match in pattern.finditer(text):
        while bracket is not None and bracket.start() < match.start():
            depth += _DEPTH.get(bracket.group(0), 0)
            bracket = next(brackets, None)
        if depth == 0:
            found.append(match)
    return found


def split(text: str, pattern: re.Pattern[str]) -> list[str]:
    """The parts between matches outside of brackets, without white space at their ends."""
    parts, at = [], 0
    for match in outside(text, pattern):
        parts.append(text[at : match.start()].strip())
        at = match.end()
    return [*parts, text[at:].strip()]


def encloses(text: str, opening: str, closing: str) -> bool:
    """Whether ``text`` begins with one bracket and ends with the other, and these two belong together."""
    if not text.startswith(opening):
        return False
    depth = 0
    for match in _BRACKET.finditer(text):
        depth += _DEPTH.get(match.group(0), 0)
        if depth == 0:
            return match.end() == len(text) and match.group(0) == closing
    return False
