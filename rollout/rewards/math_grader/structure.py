"""From the notation of an answer to what it is.

One layer is taken off at a time: lists, relations, brackets, units. Only expressions without them are left to the
symbolic part, and what looks like text is text.
"""

from __future__ import annotations

import re
from dataclasses import replace

from rollout.rewards.answers.numbers import SCALES, SHORT_SCALES
from rollout.rewards.answers.units import AMBIGUOUS, UNIT_PHRASE, canonical
from rollout.rewards.math_grader.brackets import encloses, outside, split
from rollout.rewards.math_grader.equations import RELATION, bounds, is_calculation, is_name
from rollout.rewards.math_grader.exact import as_number
from rollout.rewards.math_grader.notation import clean
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
from rollout.rewards.math_grader.words import as_text, text_of

MAX_DEPTH = 30
"""Layers of the deepest answer that is read."""

_ALIGNED = re.compile(
    r"\\begin\{(align|aligned|gather|gathered|equation|split|cases)(\*?)\}(.*)\\end\{\1\2\}", re.DOTALL
)
_MATRIX = re.compile(r"\\begin\{([pbB]?matrix|smallmatrix|array)\}(?:\{[lcr| ]*\})?(.*)\\end\{\1\}", re.DOTALL)
_UPRIGHT_AND = re.compile(r"\\text\s*\{\s*,?\s*(and|or)\s*\}")
_SEPARATOR = re.compile(r"\s*(?<!\\)[,;]\s*(?:and|or)\s+|(?<!\\);|\s(?:and|or)\s|(?<!\\),(?:(?=\s)|\\[,;: ])")
_COMMA = re.compile(r"(?<!\\),")
_SPACED_COMMA = re.compile(r"(?<!\\),(?=\s)|(?<!\\);")
_BLANKS = re.compile(r"^(?:\s|\\[,;: ]|~|\\q?quad(?![a-z]))+|(?:\s|\\[,;: ]|~|\\q?quad)+\Z")
_UNION = re.compile(r"\\cup(?![A-Za-z])")
_REALS = ("\\mathbb{R}", "\\mathbb R", "all real numbers", "all reals")
_SCALES = {name: size for name, size in SCALES.items() if name not in SHORT_SCALES}
_BRACKETS = (
    ("(", ")", "()"), ("(", "]", "(]"), ("[", "]", "[]"), ("[", ")", "[)"), ("\\{", "\\}", "{}"), ("{", "}", "{}"),
    ("\\langle", "\\rangle", "<>"),
)  # fmt: skip
_BUILDER = re.compile(r"[A-Za-z](?:\s*\\in\s*\\mathbb\s*\{?([RZNQ])\}?)?\s*([|:])\s*(.+)")
_PLUS_MINUS = re.compile(r"\\pm(?![A-Za-z])\s*")
_BASED = re.compile(r"([0-9][0-9A-Fa-f]*)\s*_\s*\{?\s*(?:\\text\{)?\s*(\d{1,2}|two|eight|ten|sixteen)\s*\}?\}?")
_BASES = {"two": 2, "eight": 8, "ten": 10, "sixteen": 16}
_PERCENT = re.compile(r"(.*\S)\s*%", re.DOTALL)
_UPRIGHT_UNIT = re.compile(
    r"(?P<value>.*?[^\s\\])\s*(?:\\[,;: ]|~|\\quad)*\s*"
    r"(?P<unit>(?:\\text\s*\{[^{}]*\}\s*(?:\^\s*\{?-?\d\}?)?\s*(?:\\cdot|/)?\s*)+)",
    re.DOTALL,
)
_PLAIN_UNIT = re.compile(
    r"(?P<value>.*[0-9})!])(?P<gap>\s*(?:\\[,;: ]|~)*\s*)"
    r"(?P<unit>[A-Za-z°$€£¥₹¢\\^][^0-9+]*(?:\^\{?[23]\}?)?)",
    re.DOTALL,
)
_NOUNS = re.compile(r"[A-Za-z]{3,}(?:[ -][A-Za-z]{2,}){0,3}\.?")
_NO_UNIT = re.compile(
    r"\b(?:and|or|if|where|for|when|with|mod|to|than|more|less|is|not|but|no|pi|sqrt|dx|remainder|in base)\b",
    re.IGNORECASE,
)


def parse_value(text: str) -> Value | None:
    """What ``text`` is, or None if there is nothing.

    Raises:
        RecursionError: it has more than :data:`MAX_DEPTH` layers.
    """
    cleaned = clean(text)
    return _parse(cleaned) if cleaned else None


def as_interval(value: Value) -> Value:
    """An inequality of one symbol as an interval; any other value as it is."""
    found = bounds(value.sides, value.signs) if isinstance(value, Inequality) else None
    return value if found is None else Group(found[0], (_parse(found[1]), _parse(found[2])))


def _parse(text: str, depth: int = 0) -> Value:
    """What a cleaned text is."""
    if depth > MAX_DEPTH:
        raise RecursionError("too many layers")
    text = _BLANKS.sub("", text)
    if text in _REALS or text_of(text) in _REALS:
        return Group("()", (Expression(r"-\infty"), Expression(r"\infty")))
    simple = as_text(text) or as_number(text)
    if simple is not None:
        return simple
    for step in (
        _builder,
        _aligned,
        _implication,
        _list,
        _approximation,
        _relation,
        _union,
        _brackets,
        _plus_minus,
        _matrix,
    ):
        found = step(text, depth + 1)
        if found is not None:
            return found
    return _based(text) or _with_unit(text, depth + 1) or Expression(text)


def _aligned(text: str, depth: int) -> Value | None:
    """Rows of equations: a value for each of several names, or the last row of a calculation."""
    found = _ALIGNED.fullmatch(text)
    if found is None:
        return None
    rows = [row.replace("&", " ").strip(" ,.;") for row in re.split(r"\\\\", found[3])]
    rows = [row for row in rows if row]
    values = [_parse(row, depth) for row in rows if not row.startswith("=")]
    names = [value.name for value in values if isinstance(value, Equation)]
    if len(names) == len(rows) > 1 and all(names) and len(set(names)) == len(names):
        return Group("list", tuple(values))
    return _parse(rows[-1].lstrip("= "), depth) if rows and found[1] != "cases" else None


def _implication(text: str, depth: int) -> Value | None:
    """What a chain of conclusions ends with."""
    parts = split(text, re.compile(r"\\implies"))
    return _parse(parts[-1], depth) if len(parts) > 1 and parts[-1] else None


def _list(text: str, depth: int) -> Value | None:
    """Values that commas, semicolons, "and" or "or" part."""
    parts = [part for part in _parted(_UPRIGHT_AND.sub(r" \1 ", text), _SEPARATOR) if part]
    if len(parts) < 2:
        return None
    items = [_parse(part, depth) for part in parts]
    first = items[0]
    if isinstance(first, Equation) and first.name and not any(isinstance(item, Equation) for item in items[1:]):
        items[0] = first.value  # x = 1, 2
    return Group("list", tuple(items))


def _parted(text: str, separator: re.Pattern[str]) -> list[str]:
    """The entries of a list; a comma without a blank after it parts, too, unless all such are in numbers (1,000)."""
    parts = split(text, separator)
    is_loose = any(as_number(part) is None and len(split(part, _COMMA)) > 1 for part in parts)
    return [piece for part in parts for piece in split(part, _COMMA)] if is_loose or len(parts) == 1 else parts


def _approximation(text: str, depth: int) -> Value | None:
    """An exact value and rounded ones; a name before them is no form of the value."""
    parts = split(text, re.compile(r"\\approx"))
    if len(parts) < 2:
        return None
    if is_name(parts[0]):
        parts = parts[1:]
    forms = tuple(_parse(part, depth) for part in parts if part)
    return (forms[0] if len(forms) == 1 else Alternatives(forms)) if forms else None


def _relation(text: str, depth: int) -> Value | None:
    """An equation, or a chain of inequalities."""
    signs = [match.group(0) for match in outside(text, RELATION)]
    if not signs:
        return None
    sides = split(text, RELATION)
    if signs == ["\\in"]:
        return _parse(sides[1], depth) if sides[1] else None
    if set(signs) == {"="}:
        return _equation([side for side in sides if side], depth)
    if {"=", "\\in", "\\equiv"} & set(signs) or not all(sides):
        return Expression(text)
    return Inequality(tuple(sides), tuple(signs))


def _equation(sides: list[str], depth: int) -> Value | None:
    """A name and its value, the result of a calculation, or an equation of two sides."""
    if not sides:
        return None
    if is_name(sides[-1]) and not is_name(sides[0]):  # 3 + 4 = 7 = x
        sides = [sides[-1], *sides[:-1]]
    first, last = sides[0], sides[-1]
    if len(sides) == 1 or (is_calculation(sides) and not is_name(first)):
        return _parse(last, depth)
    if is_name(first):
        return Equation(text_of(first), _parse(last, depth), first, last)
    return Equation("", Expression(last), first, last) if len(sides) == 2 else _parse(last, depth)


def _union(text: str, depth: int) -> Value | None:
    parts = split(text, _UNION)
    return Group("union", tuple(_parse(part, depth) for part in parts)) if len(parts) > 1 and all(parts) else None


def _brackets(text: str, depth: int) -> Value | None:
    """What brackets hold together: a point, an interval, a set; one value in parentheses is itself."""
    for opening, closing, kind in _BRACKETS:
        if encloses(text, opening, closing):
            return _bracketed(text[len(opening) : -len(closing)].strip(), kind, depth)
    return None


def _bracketed(inner: str, kind: str, depth: int) -> Value | None:
    builder = _BUILDER.fullmatch(inner) if kind == "{}" else None
    if builder is not None:
        return _built(builder, depth)
    if not inner:
        return Group(kind, ())
    parts = _parted(inner, _SPACED_COMMA)
    if not all(parts) or (len(parts) == 1 and kind in ("(]", "[)", "<>")):
        return None
    items = tuple(_parse(part, depth) for part in parts)
    if kind == "[]" and all(isinstance(item, Group) and item.kind == "[]" for item in items):
        return Group("matrix", tuple(Group("row", item.items) for item in items if isinstance(item, Group)))
    is_matrix = isinstance(items[0], Group) and items[0].kind == "matrix"  # the brackets around an array
    return items[0] if len(items) == 1 and (kind == "()" or (kind == "[]" and is_matrix)) else Group(kind, items)


def _builder(text: str, depth: int) -> Value | None:
    """``x | x > 3``, whose braces the notation has taken off."""
    found = _BUILDER.fullmatch(text)
    return _built(found, depth) if found is not None and found[2] == "|" and RELATION.search(found[3]) else None


def _built(builder: re.Match[str], depth: int) -> Value:
    """The set of what meets a condition; of whole numbers it is no interval."""
    held = _parse(builder[3], depth)
    return held if builder[1] in (None, "R") else Group(builder[1], (held,))


def _plus_minus(text: str, depth: int) -> Value | None:
    if len(_PLUS_MINUS.findall(text)) != 1 or "\\mp" in text:
        return None
    items = []
    for one in (_PLUS_MINUS.sub("+", text).lstrip("+"), _PLUS_MINUS.sub("-", text)):
        value = _parse(one, depth)
        items.append(Expression(one) if isinstance(value, Text) else value)  # 2 - 3 is no range here
    return Group("list", tuple(items))


def _matrix(text: str, depth: int) -> Value | None:
    found = _MATRIX.fullmatch(text)
    if found is None:
        return None
    rows = [row for row in re.split(r"\\\\", found[2]) if row.strip()]
    return Group(
        "matrix", tuple(Group("row", tuple(_parse(cell.strip(), depth) for cell in row.split("&"))) for row in rows)
    )


def _based(text: str) -> Based | None:
    found = _BASED.fullmatch(text)
    if found is None:
        return None
    return Based(found[1].upper().lstrip("0") or "0", _BASES.get(found[2]) or int(found[2]))


def _with_unit(text: str, depth: int) -> Value | None:
    """A value and its percent sign or unit: upright, or after a number a known sign or a noun."""
    percent = _PERCENT.fullmatch(text)
    if percent is not None:
        inner = _parse(percent[1], depth)
        return replace(inner, percent=True) if isinstance(inner, Number | Expression) else None
    found = _UPRIGHT_UNIT.fullmatch(text)
    if found is None or _NO_UNIT.search(found["unit"]):
        found = _PLAIN_UNIT.fullmatch(text)
        if found is None or not _is_plain_unit(canonical(found["unit"]), found["unit"].strip(), bool(found["gap"])):
            return None
    inner, unit = _scaled(_parse(found["value"], depth), canonical(found["unit"]))
    if not unit or (isinstance(inner, Number | Expression) and inner.unit):
        return inner
    if isinstance(inner, Number | Expression):
        return replace(inner, unit=unit)
    return inner if isinstance(inner, Group | Equation | Alternatives) else None


def _scaled(value: Value, unit: str) -> tuple[Value, str]:
    """A value and its unit, with a word such as ``million`` in front of the unit as a factor."""
    word, _, rest = unit.partition(" ")
    size = _SCALES.get(word)
    if size is None or not isinstance(value, Number | Expression):
        return value, unit
    if isinstance(value, Expression):
        return replace(value, latex=rf"{value.latex} \cdot {size}"), canonical(rest)
    return replace(value, value=value.value * size, ulp=value.ulp and value.ulp * size), canonical(rest)


def _is_plain_unit(unit: str, written: str, has_gap: bool) -> bool:
    """Whether what follows a number is a unit though nothing marks it as one."""
    if not unit or _NO_UNIT.search(written) or unit in ("$", "°C", "°F"):
        return unit in ("$", "°C", "°F")
    if written.split("^")[0].strip() in AMBIGUOUS:
        return has_gap
    return UNIT_PHRASE.fullmatch(written) is not None or (has_gap and _NOUNS.fullmatch(written) is not None)
