"""Expressions as mathematics: parsed by latex2sympy (of the package math-verify), compared at exact points by SymPy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache, reduce
from itertools import islice
from typing import Any

from rollout.rewards.math_grader.notation import for_parser

MAX_DIGITS = 10_000
"""A number with more digits than this is not written out: too large to compare."""
MAX_FACTORIAL = 3000
"""Largest number whose factorial is computed."""
NUM_POINTS = 4
"""Points at which expressions with variables are compared. They are exact; two that differ do so at nearly all."""
RELATIVE_TOLERANCE = Fraction(1, 10**6)
"""Largest difference, as a share, between a number and a decimal that stands for it."""
_VALUES = ["11/13", "17/14", "-8/7", "-13/8", "23/15", "7/5", "-19/11", "-5/6", "29/17", "3/4", "-31/19", "-9/10"]
SIX_PLACES = Fraction(1, 10**6)
MIN_DIGITS = 5
"""Significant digits that a decimal with six places must have to stand for a number beyond that difference."""


class TooLarge(Exception):
    """A number has too many digits to be computed."""


@lru_cache(maxsize=64)
def parse(latex: str) -> Any:
    """The SymPy expression of a cleaned one, or None if it cannot be read, or not without doubt."""
    from latex2sympy2_extended.latex2sympy2 import ConversionConfig, _Latex2Sympy
    from sympy import Basic, I, MatrixBase, Symbol
    from sympy.sets import Set

    text = for_parser(latex)
    if re.search(r"\\(?:triangle|angle|overline)", text):
        return None
    if re.search(r"'|\d\s+\d|\\text|%|!!|\d_|[\d)]\s*[eE]\s*\d|[^\x00-\x7f]", text):
        return None
    reader = _Latex2Sympy(is_real=True, config=ConversionConfig(lowercase_symbols=False))
    reader.convert_postfix_list = lambda factors, at=0: _product(reader, factors[at:])
    try:
        found = reader.parse(text)
    except (MemoryError, RecursionError):
        raise
    except Exception:  # its parser raises bare exceptions
        return None
    if not isinstance(found, Basic) or isinstance(found, MatrixBase | Set):
        return None
    return found.subs(Symbol("i", real=True), I)


def _product(reader: Any, factors: list[Any]) -> Any:
    """Factors without a sign between them. By itself the parser adds two numbers: it takes (2)(3) for 2 3/1.

    Mixed numbers have been spelled out before.

    Raises:
        TypeError: a factor is no expression.
    """
    from sympy import Expr

    found = [reader.convert_postfix(factor) for factor in factors]
    if not all(isinstance(factor, Expr) for factor in found):
        raise TypeError("not an expression")
    return reduce(reader.mul_flat, found)


def value_of(latex: str) -> Any:
    """The SymPy expression of a number, or None if there are variables in it or it cannot be read."""
    found = parse(latex)
    return None if found is None or found.free_symbols else found


def same_expression(left: str, right: str) -> bool:
    """Whether two cleaned expressions are equal wherever both are defined.

    Raises:
        TooLarge: a number in them has more than :data:`MAX_DIGITS` digits.
    """
    one, other = parse(left), parse(right)
    if one is None or other is None:
        return False
    _check_size(one)
    _check_size(other)
    if one == other:
        return True
    return _equal_at_points(one, other)


def proportional(left: tuple[str, str], right: tuple[str, str], positive: bool = False) -> bool:
    """Whether two equations, or inequalities, each the difference of two sides, are the same but for a constant factor.

    Args:
        positive: whether the factor must be positive.

    Raises:
        TooLarge: see :func:`same_expression`.
    """
    sides = [parse(side) for side in (*left, *right)]
    if any(side is None for side in sides):
        return False
    for side in sides:
        _check_size(side)
    one, other = sides[0] - sides[1], sides[2] - sides[3]
    symbols = one.free_symbols | other.free_symbols
    if not symbols or one.free_symbols != other.free_symbols:
        return False
    values = [(one.subs(point), other.subs(point)) for point in islice(_points(symbols), NUM_POINTS)]
    known = [pair for pair in values if _is_known(pair[0]) and _is_known(pair[1])]
    if any(is_zero(a) is not is_zero(b) for a, b in known):
        return False
    rest = [pair for pair in known if not is_zero(pair[0])]
    if len(rest) < 2 or (positive and not _is_positive(rest[0][0] / rest[0][1])):
        return False
    return all(is_zero(rest[0][0] * b - a * rest[0][1]) for a, b in rest)


def is_zero(value: Any) -> bool:
    """Whether a number is zero, as far as a hundred digits tell.

    Raises:
        TooLarge: see :func:`same_expression`.
    """
    _check_size(value)
    done = value.doit()
    if done.is_zero:
        return True
    if done.is_Rational:
        return False
    found = done.evalf()
    if found.is_zero:
        return True
    real, imaginary = found.as_real_imag()
    return all(part.is_zero or getattr(part, "_prec", 0) == 1 for part in (real, imaginary))


def is_near(value: Any, number: Fraction, ulp: Fraction | None, digits: int) -> bool:
    """Whether a decimal stands for an exact number: less than a unit in its last place away, and close in proportion.

    Raises:
        TooLarge: see :func:`same_expression`.
    """
    from sympy import Rational

    exact = Rational(number.numerator, number.denominator)
    if ulp is None:
        return is_zero(value - exact)
    _check_size(value)
    found = value.doit().evalf(30)
    if not found.is_real:
        return False
    difference = abs(found - exact)
    has_places = ulp <= SIX_PLACES and digits >= MIN_DIGITS
    close = bool(difference <= abs(exact) * Rational(RELATIVE_TOLERANCE.numerator, RELATIVE_TOLERANCE.denominator))
    return bool(difference < Rational(ulp.numerator, ulp.denominator)) and (has_places or close)


def _equal_at_points(one: Any, other: Any) -> bool:
    symbols = one.free_symbols | other.free_symbols
    if not symbols:
        return _are_equal(one, other)
    values = [(one.subs(point), other.subs(point)) for point in islice(_points(symbols), NUM_POINTS)]
    known = [(here, there) for here, there in values if _is_known(here) and _is_known(there)]
    return len(known) >= 2 and all(_are_equal(here, there) for here, there in known)


def _are_equal(one: Any, other: Any) -> bool:
    """Two numbers; infinite ones are equal if they are the same."""
    if not one.is_finite or not other.is_finite:
        if one == other:
            return True
        if one.is_infinite or other.is_infinite:
            return False
    return is_zero(one - other)


def _points(symbols: set[Any]) -> Iterator[dict[Any, Any]]:
    """Rational points, the same for the same names; any two names have values of all pairs of signs."""
    from sympy import Rational

    names = sorted(symbols, key=str)
    for first in range(len(_VALUES)):
        yield {symbol: Rational(_VALUES[(first - index) % len(_VALUES)]) for index, symbol in enumerate(names)}


def _is_known(value: Any) -> bool:
    from sympy import nan, zoo

    return not value.has(nan, zoo)


def _is_positive(value: Any) -> bool:
    found = value.doit().evalf()
    return bool(found.is_real and found > 0)


def _check_size(value: Any) -> None:
    """Raise :class:`TooLarge` before powers, factorials and binomials are computed that have too many digits.

    A power of a variable counts as one of 10, since it will be one of a number.
    """
    from sympy import Pow, binomial, factorial, preorder_traversal

    for part in preorder_traversal(value):
        if isinstance(part, Pow) and not part.exp.free_symbols:
            is_large = _size(part.exp) * (1 if part.base.free_symbols else _num_digits(part.base)) > MAX_DIGITS
        elif isinstance(part, factorial | binomial) and not part.free_symbols:
            is_large = min(map(_size, part.args)) > MAX_FACTORIAL
        else:
            continue
        if is_large:
            raise TooLarge


def _size(value: Any) -> Any:
    _check_size(value)
    return abs(value.evalf())


def _num_digits(base: Any) -> Any:
    """Digits that each power of a number adds, to the numerator or the denominator."""
    from sympy import log

    _check_size(base)
    exact = base.doit()
    size = max(abs(exact.p), exact.q) if exact.is_Rational else abs(exact.evalf())
    return abs(log(size, 10).evalf()) if size != 0 else 0
