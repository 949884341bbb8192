"""Which kind of mistake something is that pydantic found."""

from __future__ import annotations

import re

from rollout.component.errors import UserError
from rollout.component.mistakes import Conflict, MissingKey, OutOfRange, UnknownKey, WrongType, WrongValue

_KINDS: dict[str, type[UserError]] = {
    "extra_forbidden": UnknownKey,
    "missing": MissingKey,
    "cross_field": Conflict,
    "finite_number": OutOfRange,
    "multiple_of": OutOfRange,
}
_BOUND = re.compile(r"greater_than|less_than|too_short|too_long")
_TYPE = re.compile(r"_type$|_parsing$|int_from_float")


def code_of(pydantic_type: str) -> str:
    """The code of an error that pydantic calls so; whatever is neither a key, a type nor a bound is a wrong value."""
    if _BOUND.search(pydantic_type):
        return OutOfRange.code
    return (WrongType if _TYPE.search(pydantic_type) else _KINDS.get(pydantic_type, WrongValue)).code
