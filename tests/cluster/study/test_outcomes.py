"""Numbers of a learning curve by hand, and the classes of runs."""

from __future__ import annotations

import math

import pytest

from cluster.study.outcomes import Curve, Outcome, area, classify, gap_closed, matched, worst_drop

CLEAN = Curve((0, 20, 40, 60, 80), (0.5, 0.7, 0.9, 0.95, 1.0))


def curve(*scores: float) -> Curve:
    return Curve((0, 20, 40, 60, 80), scores)


def test_area_is_the_mean_height() -> None:
    assert area(Curve((0, 10, 40), (0.0, 0.6, 0.6))) == pytest.approx((10 * 0.3 + 30 * 0.6) / 40)
    assert area(Curve((7,), (0.3,))) == 0.3


def test_worst_drop_is_from_the_best_before() -> None:
    assert worst_drop(curve(0.5, 0.9, 0.6, 0.95, 0.8)) == pytest.approx(0.3)
    assert worst_drop(CLEAN) == 0.0


def test_matched_curves_end_where_the_shorter_one_does() -> None:
    fast, slow = matched([Curve((0, 10, 20), (0.0, 0.5, 0.6)), Curve((0, 15), (0.0, 0.3))])
    assert fast.places == (0, 10, 15)
    assert fast.scores == pytest.approx((0.0, 0.5, 0.55))
    assert slow == Curve((0, 15), (0.0, 0.3))


def test_gap_closed_is_a_share_of_the_clean_gain() -> None:
    assert gap_closed(curve(0.5, 0.6, 0.7, 0.8, 0.9), CLEAN) == pytest.approx(0.8)
    assert math.isnan(gap_closed(CLEAN, curve(0.5, 0.5, 0.5, 0.5, 0.5)))


@pytest.mark.parametrize(
    ("scores", "outcome"),
    [
        ((0.5, 0.6, 0.8, 0.9, 0.96), Outcome.REACHED),
        ((0.5, 0.55, 0.6, 0.65, 0.72), Outcome.DELAY),
        ((0.5, 0.7, 0.75, 0.76, 0.76), Outcome.PLATEAU),
        ((0.5, 0.5, 0.49, 0.5, 0.49), Outcome.PLATEAU),  # it never learned; a point of 500 questions is no collapse
        ((0.5, 0.8, 0.85, 0.7, 0.6), Outcome.COLLAPSE),
        ((0.5, 0.48, 0.46, 0.44, 0.43), Outcome.COLLAPSE),
        ((0.5, 0.99, 1.0, 0.99, 0.97), Outcome.REACHED),
    ],
)
def test_classes(scores: tuple[float, ...], outcome: Outcome) -> None:
    assert classify(curve(*scores), CLEAN) is outcome


def test_no_class_where_clean_rewards_gain_nothing() -> None:
    assert classify(CLEAN, curve(0.5, 0.5, 0.5, 0.5, 0.5)) is None


@pytest.mark.parametrize(("places", "scores"), [((), ()), ((0, 1), (0.5,)), ((1, 1), (0.1, 0.2)), ((2, 1), (0.1, 0.2))])
def test_what_is_no_curve(places: tuple[float, ...], scores: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="curve"):
        Curve(places, scores)
