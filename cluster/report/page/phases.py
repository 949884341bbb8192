"""What the learner did when: the phases of each step on the clock, for the page's timeline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.report.page.curves import number
from cluster.report.run_record import RunRecord

PHASES = ("wait", "old", "estimate", "policy", "critic", "sync", "eval", "other")
"""In the order of a step: the learner's wait, the parts of its update, weights out, evaluation, and the rest."""
MAX_BARS = 240


def phases_of(line: Mapping[str, float]) -> list[float]:
    """Seconds of each phase of a step, in the order of :data:`PHASES`; what is not recorded is in the rest."""

    def seconds(*keys: str) -> float:
        return sum(value for key in keys if math.isfinite(value := line.get(f"time/{key}_s", 0.0)))

    found = [
        seconds("wait"),
        seconds("learner_drift", "learner_old"),
        seconds("learner_estimate"),
        seconds("learner_policy"),
        seconds("learner_critic"),
        seconds("sync_export", "sync_load"),
        seconds("eval"),
    ]
    return [*found, max(0.0, seconds("step") - sum(found))]


def timeline(run: RunRecord) -> dict[str, Any] | None:
    """Bars for the page: begin in seconds since the first step began, and seconds of each phase; None without steps.

    Neighbouring steps of a long run are one bar.
    """
    steps = run.metrics.steps
    if not steps:
        return None
    origin = steps[0]["time"] - steps[0]["time/step_s"]
    width = math.ceil(len(steps) / MAX_BARS)
    bars = []
    for start in range(0, len(steps), width):
        lines = steps[start : start + width]
        seconds = [sum(column) for column in zip(*map(phases_of, lines), strict=True)]
        generate = _mean([line.get("time/generate_frac", math.nan) for line in lines])
        begin = lines[0]["time"] - lines[0]["time/step_s"] - origin
        bars.append([int(lines[-1]["step"]), number(begin), [number(s, 3) for s in seconds], number(generate, 3)])
    return {"phases": PHASES, "origin": origin, "steps_per_bar": width, "bars": bars}


def shown_events(run: RunRecord, origin: float | None, most: int) -> list[list[Any]]:
    """Events for the page: seconds since the first step began, step, kind, level, text. Info is left out first."""
    events = sorted(run.events, key=lambda e: (e.get("level") == "info", e.get("time", 0.0)))[:most]
    events.sort(key=lambda event: event.get("time", 0.0))
    return [
        [
            None if origin is None else number(float(event.get("time", 0.0)) - origin),
            event.get("step"),
            str(event.get("kind", "")),
            str(event.get("level", "info")),
            str(event.get("text", ""))[:600],
        ]
        for event in events
    ]


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan
