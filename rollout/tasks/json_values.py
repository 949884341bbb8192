"""Values of data files in the one form that JSON has for them; docs/data.md has the table.

Rewards read them in every process, `remote` sends them to a server, and a run's log has them for an audit: all of them
see the same.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt


class NoJsonForm(TypeError):
    """A value that JSON has no form for; the text says what it is."""


def json_value(value: Any) -> Any:
    """``value`` as None, bool, int, finite float, text, list, or dict with text keys; equal for what is one already.

    Raises:
        NoJsonForm: there is none, or it is nested too deep.
    """
    try:
        return _converted(value)
    except RecursionError as error:
        raise NoJsonForm("is nested too deep") from error


def _converted(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return _whole_characters(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, Decimal):
        return format(value, "f")  # a number would lose digits, and the zeros that say how exact it is
    if isinstance(value, date | time):  # a datetime is a date
        return None if value != value else value.isoformat()  # pandas' NaT is a datetime that equals nothing
    if isinstance(value, timedelta):
        return None if value != value else value.total_seconds()
    if isinstance(value, bytes | bytearray | memoryview):
        return b64encode(value).decode("ascii")
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Mapping):
        return {_key(key): _converted(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_converted(entry) for entry in value]
    if isinstance(value, np.generic | np.ndarray):
        return _from_numpy(value)
    raise NoJsonForm(f"is of type {type(value).__name__}, which JSON has no form for")


def _number(value: float) -> float | str | None:
    """JSON has no word for what is not finite: NaN is how pandas writes a gap, and infinity becomes text."""
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return float(value)


def _whole_characters(text: str) -> str:
    """Half a character, which JSON can spell and UTF-8 cannot, as U+FFFD."""
    if text.isascii():
        return str(text)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _key(key: Any) -> str:
    """A key, which JSON knows as text only."""
    found = _converted(key)
    return found if isinstance(found, str) else repr(found)


def _from_numpy(value: np.generic | npt.NDArray[Any]) -> Any:
    array = np.asarray(value)
    match array.dtype.kind:
        case "M":  # `tolist` makes bare numbers of nanoseconds
            texts = np.datetime_as_string(array).astype(object)
            return np.where(np.isnat(array), np.array(None), texts).tolist()
        case "m":
            return _converted((array / np.timedelta64(1, "s")).tolist())
        case "f" if array.dtype.itemsize < 8:  # the shortest fraction that means the same: 0.1
            return _converted(array.astype(str).astype(np.float64).tolist())
        case "f":
            return _converted(array.astype(np.float64).tolist())
        case "b" | "i" | "u" | "S" | "U" | "O":
            return _converted(array.tolist())
    raise NoJsonForm(f"is of type {array.dtype.name}, which JSON has no form for")
