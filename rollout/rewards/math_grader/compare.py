"""Whether an answer is the reference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from rollout.rewards.math_grader import symbolic
from rollout.rewards.math_grader.notation import clean
from rollout.rewards.math_grader.structure import as_interval, parse_value
from rollout.rewards.math_grader.values import (
    Alternatives,
    Based,
    Equation,
    Expression,
    Group,
    Inequality,
    Number,
    Text,
    Value,
)

MAX_ITEMS = 64
"""Longest list that is compared in any order."""


def is_equal(reference: str, answer: str) -> bool:
    """Whether two expressions, as they are written, mean the same.

    Raises:
        symbolic.TooLarge: a number in them has too many digits.
    """
    one, other = parse_value(reference), parse_value(answer)
    if one is None or other is None:
        return False
    return _squeezed(reference) == _squeezed(answer) or _same(one, other)


def _squeezed(text: str) -> str:
    return re.sub(r"\\[,;: ]|~|\s", "", clean(text))


def _same(reference: Value, answer: Value) -> bool:
    """Whether two values are the same; a unit or a name may be left out of one of them."""
    for one, other in ((reference, answer), (answer, reference)):
        if isinstance(one, Alternatives):
            return any(_same(form, other) for form in one.forms)
        if isinstance(one, Equation) and one.name and not isinstance(other, Equation):
            return _same(one.value, other)
    if isinstance(reference, Equation) and isinstance(answer, Equation):
        return _same_equation(reference, answer)
    if isinstance(reference, Inequality) and isinstance(answer, Inequality) and _same_inequality(reference, answer):
        return True
    reference, answer = as_interval(reference), as_interval(answer)
    if isinstance(reference, Group) or isinstance(answer, Group):
        return _same_group(_group(reference), _group(answer))
    if isinstance(reference, Text) and isinstance(answer, Text):
        return reference.text == answer.text
    if isinstance(reference, Based) or isinstance(answer, Based):
        return _same_based(reference, answer)
    if isinstance(reference, Number | Expression) and isinstance(answer, Number | Expression):
        return _same_unit(reference.unit, answer.unit) and _same_scalar(reference, answer)
    return False


def _same_unit(reference: str, answer: str) -> bool:
    """One may be left out; two must be the same."""
    return not reference or not answer or reference == answer


def _same_scalar(reference: Number | Expression, answer: Number | Expression) -> bool:
    """Numbers and expressions; a percentage is a hundredth, or as much as a reference that stands for percent."""
    if reference.percent == answer.percent:
        return _same_magnitude(reference, answer)
    percent, plain = (reference, answer) if reference.percent else (answer, reference)
    if isinstance(percent, Number) and isinstance(plain, Number):
        as_written = abs(plain.value) > 1 and not plain.unit and _same_numbers(percent, plain)
        hundredth = Number(percent.value / 100, None if percent.ulp is None else percent.ulp / 100, percent.digits)
        return as_written or _same_numbers(hundredth, plain)
    latex = percent.latex if isinstance(percent, Expression) else _latex(percent)
    return _same_magnitude(Expression(rf"\frac{{{latex}}}{{100}}"), plain)


def _same_magnitude(one: Number | Expression, other: Number | Expression) -> bool:
    if isinstance(one, Number):
        return _same_numbers(one, other) if isinstance(other, Number) else _is_number(other, one)
    return _is_number(one, other) if isinstance(other, Number) else symbolic.same_expression(one.latex, other.latex)


def _is_number(expression: Expression, number: Number) -> bool:
    value = symbolic.value_of(expression.latex)
    if value is None:
        return symbolic.same_expression(expression.latex, _latex(number))
    return symbolic.is_near(value, number.value, number.ulp, number.digits)


def _latex(number: Number) -> str:
    return rf"\frac{{{number.value.numerator}}}{{{number.value.denominator}}}"


def _same_numbers(one: Number, other: Number) -> bool:
    """Equal, or the one is a decimal that stands for the other."""
    return one.value == other.value or _stands_for(one, other) or _stands_for(other, one)


def _stands_for(decimal: Number, exact: Number) -> bool:
    """Whether a decimal is a number without end cut or rounded, or a decimal with more places rounded.

    It needs six significant digits or, as ``0.083333`` for 1/12, six places; of a decimal always six places.
    """
    if decimal.ulp is None:
        return False
    difference = abs(decimal.value - exact.value)
    close = difference <= symbolic.RELATIVE_TOLERANCE * abs(exact.value)
    if exact.ulp is not None:
        return decimal.ulp <= symbolic.SIX_PLACES and close and difference <= decimal.ulp / 2
    has_places = decimal.ulp <= symbolic.SIX_PLACES and decimal.digits >= symbolic.MIN_DIGITS
    return not _terminates(exact.value) and difference < decimal.ulp and (close or has_places)


def _terminates(value: Fraction) -> bool:
    """Whether a fraction is a decimal with an end, so that another decimal is another number."""
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _group(value: Value) -> Group:
    return value if isinstance(value, Group) else Group("list", (value,))


def _same_group(one: Group, other: Group) -> bool:
    """Lists without brackets and sets are compared in any order; points, intervals and matrices in theirs."""
    one, other = _flat(one), _flat(other)
    kinds = {one.kind, other.kind}
    if "list" in kinds and len(kinds) == 2 and len(one.items) == 1 and len(other.items) == 1:
        return kinds == {"list", "{}"} and _same(one.items[0], other.items[0])
    values = (_values(one), _values(other))
    if kinds <= {"list", "{}", "union"} and kinds != {"{}", "union"}:
        if kinds == {"list"} and _names(one) and _names(other):
            return _in_any_order(one.items, other.items)
        if kinds == {"{}"}:
            return _in_any_order(*map(_distinct, values))
        return _in_any_order(*values)
    if kinds == {"matrix"}:
        return _in_order(one.items, other.items)
    ordered = kinds <= {"()", "<>", "list", "matrix"} or len(kinds) == 1
    ordered = ordered or (kinds <= {"()", "[]", "<>", "list"} and len(one.items) > 2)  # three are no interval
    if not ordered:
        return False
    return _in_order(_in_line(one), _in_line(other))


def _flat(group: Group) -> Group:
    """A list within a list, such as "x = ±2, 5", as one."""
    if group.kind != "list":
        return group
    items: list[Value] = []
    for item in group.items:
        inner = item.value if isinstance(item, Equation) and isinstance(item.value, Group) else item
        items += inner.items if isinstance(inner, Group) and inner.kind == "list" else (item,)
    return Group("list", tuple(items))


def _values(group: Group) -> tuple[Value, ...]:
    """Items without names: x = 2, x = 3 is 2, 3."""
    return tuple(item.value if isinstance(item, Equation) and item.name else item for item in group.items)


def _names(group: Group) -> list[str]:
    """Names of a list in which each item has another one: x = 1, y = 2; else none."""
    names = [item.name for item in group.items if isinstance(item, Equation) and item.name]
    return names if len(names) == len(group.items) == len(set(names)) else []


def _in_line(group: Group) -> tuple[Value, ...]:
    """The items of a matrix with one row or one column; of others the rows; of a list its values."""
    if group.kind != "matrix":
        return _values(group)
    rows = [row.items for row in group.items if isinstance(row, Group)]
    if len(rows) == 1:
        return rows[0]
    return tuple(row[0] for row in rows) if all(len(row) == 1 for row in rows) else group.items


def _distinct(items: Sequence[Value]) -> tuple[Value, ...]:
    found: list[Value] = []
    for item in items:
        if not any(_same(item, other) for other in found):
            found.append(item)
    return tuple(found)


def _in_order(one: Sequence[Value], other: Sequence[Value]) -> bool:
    return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))


def _in_any_order(one: Sequence[Value], other: Sequence[Value]) -> bool:
    if len(one) != len(other) or len(one) > MAX_ITEMS:
        return False
    rest = list(other)
    for item in one:
        match = next((candidate for candidate in rest if _same(item, candidate)), None)
        if match is None:
            return False
        rest.remove(match)
    return True


def _same_equation(one: Equation, other: Equation) -> bool:
    """A name with its value, or two equations that differ by a constant factor."""
    if one.name and other.name:
        is_named_alike = one.name == other.name or len(one.name) > 1 or len(other.name) > 1
        if is_named_alike and _same(one.value, other.value):
            return True
    return symbolic.proportional((one.left, one.right), (other.left, other.right))


def _same_inequality(one: Inequality, other: Inequality) -> bool:
    """The same constraints, each turned so that it says what is larger."""
    mine, yours = _constraints(one), _constraints(other)
    if len(mine) != len(yours):
        return False
    for sign, sides in mine:
        positive = sign != "\\ne"
        match = next((c for c in yours if c[0] == sign and symbolic.proportional(sides, c[1], positive)), None)
        if match is None:
            return False
        yours.remove(match)
    return True


def _constraints(chain: Inequality) -> list[tuple[str, tuple[str, str]]]:
    found = []
    for index, sign in enumerate(chain.signs):
        left, right = chain.sides[index], chain.sides[index + 1]
        turned = {"<": ">", "\\le": "\\ge"}.get(sign)
        found.append((turned, (right, left)) if turned else (sign, (left, right)))
    return found


def _same_based(one: Value, other: Value) -> bool:
    """Digits in the same base; the base may be left out."""
    if isinstance(one, Based) and isinstance(other, Based):
        return one == other
    based, plain = (one, other) if isinstance(one, Based) else (other, one)
    return (
        isinstance(based, Based)
        and isinstance(plain, Number)
        and plain.value.denominator == 1
        and str(plain.value.numerator) == based.digits
    )
