"""Sides and signs of equations and inequalities."""

from __future__ import annotations

import re

from rollout.rewards.math_grader.words import plain

RELATION = re.compile(r"\\(?:le|ge|ne|in|equiv)(?![A-Za-z])|[<>=]")
_NAME = re.compile(
    r"\\?[A-Za-z]+'*(?:_\s?(?:\{[\w,+-]+\}|\w+))?'*(?:\s?\(\s?[A-Za-z0-9_, |]+\s?\))?"  # x, a_1, \theta, f(x), P(A|B)
    r"|\(\s?[A-Za-z](?:_\{?\d\}?)?(?:\s?,\s?[A-Za-z](?:_\{?\d\}?)?)+\s?\)"  # (x, y)
    r"|[a-w](?:\s?[+-]\s?[a-w]){1,3}"  # m + n, as some questions ask for; lines have x, y and z
    r"|[A-Za-z][A-Za-z ]+|\|\s?[A-Za-z]{2,}\s?\|"  # total cost, |AB|
    r"|\\(?:angle|overline|vec|hat|bar|triangle)\s?\{?\s?[A-Za-z]+\}?|\\frac\{d[A-Za-z]?\}\{d[a-z]\}"
)
_CONSTANTS = ("\\pi", "\\infty", "e", "\\emptyset")
_VARIABLE = re.compile(r"(?<![\\A-Za-z])[A-Za-df-hj-z](?![A-Za-z])")
_OPERATION = re.compile(r"\\(?:int|iint|sum|prod|lim)(?![A-Za-z])")


def is_name(text: str) -> bool:
    """Whether one side of an equation only names what the other one is worth."""
    bare = plain(text)
    return bare not in _CONSTANTS and _NAME.fullmatch(bare) is not None


def is_calculation(sides: list[str]) -> bool:
    """Whether equal sides are steps of a calculation, of which the last is the result: ``3 + 4 = 7``."""
    return _OPERATION.match(sides[0]) is not None or not any(
        _VARIABLE.search(re.sub(r"\\text\s*\{[^{}]*\}", "", side)) for side in sides
    )


def bounds(sides: tuple[str, ...], signs: tuple[str, ...]) -> tuple[str, str, str] | None:
    r"""``1 < x \le 2`` as ("(]", "1", "2"): brackets, lower and upper end; None if it is no interval of one symbol."""
    symbols = [index for index, side in enumerate(sides) if is_name(side) and len(plain(side).lstrip("\\")) < 8]
    if len(symbols) != 1 or "\\ne" in signs or len(sides) > 3 or (len(sides) == 3 and symbols[0] != 1):
        return None
    at = symbols[0]
    low, high = ("(", r"-\infty"), (")", r"\infty")
    for index, sign in enumerate(signs):
        other = sides[index + 1] if index == at else sides[index]
        if (sign in (">", "\\ge")) == (index == at):  # the symbol is the larger side
            low = ("[" if sign in ("\\le", "\\ge") else "(", other)
        else:
            high = ("]" if sign in ("\\le", "\\ge") else ")", other)
    if len(sides) == 3 and (low[1] == r"-\infty" or high[1] == r"\infty"):
        return None
    return low[0] + high[0], low[1], high[1]
