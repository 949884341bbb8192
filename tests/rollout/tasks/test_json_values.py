"""Every kind of value that a data file can hold has one form in JSON, or is refused."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.tasks.json_values import NoJsonForm, json_value

UTC = datetime.UTC
# value, its form
FORMS: list[tuple[Any, Any]] = [
    (datetime.datetime(2031, 2, 5), "2031-02-05T00:00:00"),
    (datetime.datetime(2031, 2, 5, 6, 7, 8, 9, UTC), "2031-02-05T06:07:08.000009+00:00"),
    (datetime.date(2031, 2, 5), "2031-02-05"),
    (datetime.time(6, 7), "06:07:00"),
    (datetime.timedelta(hours=1, milliseconds=500), 3600.5),
    (Decimal("1.10"), "1.10"),
    (Decimal("1E+2"), "100"),
    (Decimal("-0.000001"), "-0.000001"),
    (b"\x00\xff", "AP8="),
    (bytearray(b"ab"), "YWI="),
    (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    (float("nan"), None),
    (float("inf"), "Infinity"),
    (float("-inf"), "-Infinity"),
    ("half \ud83d", "half \ufffd"),
    ("whole \ud83d\ude00 é", "whole \U0001f600 é"),
    ((1, (2,)), [1, [2]]),
    ([("a", b"x")], [["a", "eA=="]]),
    ({"a": {"b": Decimal("2.50")}}, {"a": {"b": "2.50"}}),
    ({1: "a", datetime.date(2031, 2, 5): "c", b"x": "d"}, {"1": "a", "2031-02-05": "c", "eA==": "d"}),
    (np.int64(3), 3),
    (np.bool_(True), True),
    (np.float32(0.1), 0.1),
    (np.float64(0.1), 0.1),
    (np.longdouble(0.5), 0.5),
    (np.str_("a"), "a"),
    (np.bytes_(b"x"), "eA=="),
    (np.array([[1.5, np.nan]]), [[1.5, None]]),
    (np.array([0.1, 0.2], dtype=np.float16), [0.1, 0.2]),
    (np.array(["2031-02-05", "NaT"], dtype="datetime64[D]"), ["2031-02-05", None]),
    (np.datetime64("2031-02-05T06:07:08.123456789"), "2031-02-05T06:07:08.123456789"),
    (np.datetime64("NaT"), None),
    (np.timedelta64(90, "s"), 90.0),
    (np.array([Decimal("1.0"), b"x"], dtype=object), ["1.0", "eA=="]),
]


@pytest.mark.parametrize(("value", "form"), FORMS, ids=[repr(value)[:40] for value, _ in FORMS])
def test_form(value: Any, form: Any) -> None:
    found = json_value(value)
    assert found == form and type(found) is type(form)
    assert json.loads(json.dumps(found, allow_nan=False)) == form  # what a strict server reads
    json.dumps(found, ensure_ascii=False).encode()  # what a file in UTF-8 can hold


@pytest.mark.parametrize("value", [object(), 1j, {1, 2}, np.complex64(1), [lambda: 0], {"a": [object()]}])
def test_no_form(value: Any) -> None:
    with pytest.raises(NoJsonForm, match=r"is of type .*, which JSON has no form for"):
        json_value(value)


def test_too_deep() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(NoJsonForm, match="is nested too deep"):
        json_value(value)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(PLAIN)
def test_what_json_can_say_stays_as_it_is(value: Any) -> None:
    assert json_value(value) == value


@settings(max_examples=200, deadline=None)
@given(st.recursive(st.binary() | st.datetimes() | st.decimals() | st.floats() | st.text(), st.lists, max_leaves=8))
def test_the_form_of_a_form_is_itself(value: Any) -> None:
    once = json_value(value)
    assert json_value(once) == once
