"""Overlap accounting."""

from __future__ import annotations

from actors.loop.activity import ActivityClock, seconds_with
from actors.loop.step_metrics import activity_metrics


class FakeTime:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_seconds_by_simultaneous_activities() -> None:
    time = FakeTime()
    clock = ActivityClock(time)
    time.now = 1.0
    clock.enter("generate")
    time.now = 3.0
    clock.enter("generate")
    with clock.during("train"):
        time.now = 6.0
        clock.leave("generate")
        clock.leave("generate")
        time.now = 7.0
    time.now = 10.0
    seconds = clock.take()
    assert seconds_with(seconds, "generate") == 5.0
    assert seconds_with(seconds, "train") == 4.0
    assert seconds_with(seconds, "generate", "train") == 3.0
    metrics = activity_metrics(seconds)
    assert metrics["time/wall_s"] == 10.0
    assert metrics["time/overlap_frac"] == 0.3
    time.now = 12.0
    assert activity_metrics(clock.take())["time/wall_s"] == 2.0
