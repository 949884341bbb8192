"""What an answer can be."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True, slots=True)
class Text:
    """Compared character by character, without regard to case and white space."""

    text: str


@dataclass(frozen=True, slots=True)
class Number:
    """An exact number.

    Attributes:
        ulp: value of a unit in the last place of a decimal, which may stand for a number that it is rounded from; None
            for whole numbers and fractions.
        digits: significant digits of a decimal.
        percent: whether a percent sign follows; ``value`` is then what stands before it.
        unit: in canonical spelling, or empty.
    """

    value: Fraction
    ulp: Fraction | None = None
    digits: int = 0
    percent: bool = False
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Expression:
    """Left to the symbolic part; ``latex`` is cleaned."""

    latex: str
    unit: str = ""
    percent: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Several values. ``kind`` is the pair of brackets, ``list`` without any, ``union``, ``matrix`` or ``row``."""

    kind: str
    items: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Equation:
    """A name with its value if ``name`` is not empty, else any equation. Its sides are kept as they are written."""

    name: str
    value: Value
    left: str
    right: str


@dataclass(frozen=True, slots=True)
class Inequality:
    r"""A chain of expressions with ``<``, ``>``, ``\le``, ``\ge`` or ``\ne`` between them."""

    sides: tuple[str, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Based:
    """Digits in a base that is written behind them."""

    digits: str
    base: int


@dataclass(frozen=True, slots=True)
class Alternatives:
    """The same value in several forms: ``1/3 ≈ 0.333``."""

    forms: tuple[Value, ...]


Value = Text | Number | Expression | Group | Equation | Inequality | Based | Alternatives
