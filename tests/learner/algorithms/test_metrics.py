"""Metric values that the policy loss needs: percentiles and effective sample sizes that merge."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.metrics import EffectiveShare, Percentile, merge_metrics, to_floats


@given(
    values=st.lists(st.floats(-10, 10), min_size=1, max_size=60),
    cut=st.integers(0, 60),
    level=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
)
@settings(max_examples=50, deadline=None)
def test_small_percentiles_are_exact_however_they_are_merged(values: list[float], cut: int, level: float) -> None:
    whole = Percentile.of(level, values)
    merged = Percentile.of(level, values[:cut]).merge(Percentile.of(level, values[cut:]))
    assert merged.value == whole.value == sorted(values)[min(int(level * len(values)), len(values) - 1)]


def test_many_merges_stay_small_and_near() -> None:
    stream = random.Random(0)
    values = [stream.gauss(0, 1) for _ in range(20_000)]
    merged = Percentile.of(0.95, [])
    for start in range(0, len(values), 1000):
        merged = merged.merge(Percentile.of(0.95, values[start : start + 1000]))
    assert len(merged.points) <= Percentile.RESOLUTION
    assert merged.weight == 20_000
    rank = sum(v < merged.value for v in values) / 20_000
    assert rank == pytest.approx(0.95, abs=0.01)


def test_effective_share() -> None:
    parts = [{"w": EffectiveShare(3.0, 5.0, 2.0)}, {"w": EffectiveShare(1.0, 1.0, 1.0)}]  # weights 1, 2 and 1
    assert to_floats(merge_metrics(parts))["w"] == pytest.approx(16 / (3 * 6))
    assert math.isnan(EffectiveShare(0.0, 0.0, 0.0).value)
    assert math.isnan(Percentile.of(0.5, []).value)


@pytest.mark.parametrize("number", [0, 1, 511, 512, 513, 1000, 1537, 4096])
def test_a_summary_keeps_what_stands_for_equal_shares(number: int) -> None:
    """Against the walk through observations of weight 1."""
    found = Percentile.of_sorted(0.5, [float(i) for i in range(number)]).points
    count, points, index = min(number, 512), [], 0
    for k in range(count):
        while index + 1 < (k + 0.5) / count * number:
            index += 1
        points.append(float(index))
    assert found == tuple(points) and len(found) == count
