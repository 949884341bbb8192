"""What happened in a run, in a few lines: how far it got, how it ended, what it learned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from cluster.display.report import format_duration, with_interval
from cluster.report.diagnosis.signals import CLEAN, OBSERVED
from cluster.report.run_record import RunRecord

State = Literal["finished", "stopped", "failed", "unfinished"]
ESTIMATED = "trust/j"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How a run went.

    Attributes:
        state: ``unfinished``: it goes on, or was killed; a folder alone cannot tell.
        headline: one sentence.
        facts: a name and a value each, in the order in which a reader wants them.
    """

    state: State
    headline: str
    facts: tuple[tuple[str, str], ...]


def verdict(run: RunRecord) -> Verdict:
    """Sum a run up."""
    state, ending = _ending(run)
    facts = [
        ("steps", f"{run.metrics.last_step}" + (f" of {run.num_steps}" if run.num_steps is not None else "")),
        ("method", run.settings.algorithm),
        ("seed", str(run.settings.get("seed", "not recorded"))),
        *_accuracies(run),
        *_rewards(run),
        *_noise(run),
        *_time(run),
        *_labels(run),
    ]
    return Verdict(state=state, headline=f"{ending} {_learned(run)}", facts=tuple(facts))


def _ending(run: RunRecord) -> tuple[State, str]:
    done, planned = run.metrics.last_step, run.num_steps
    if planned is not None and done >= planned:
        return "finished", f"All {planned} steps are done."
    stops = run.events_of("stop")
    if run.error:
        return "failed", f"The run failed after step {done}: {run.error}"
    if stops:
        return "stopped", f"The run was stopped after step {done}."
    goal = f" of {planned}" if planned is not None else ""
    return "unfinished", f"{done}{goal} steps are done: the run goes on, or it was killed."


def _learned(run: RunRecord) -> str:
    splits = run.metrics.splits
    values = run.metrics.accuracy(splits[0]).values if splits else ()
    if len(values) > 1:
        key = f"eval/{splits[0]}/accuracy"
        first, last = run.metrics.curve(f"{key}_high").values, run.metrics.curve(f"{key}_low").values
        sure = "" if not first or not last or last[-1] > first[0] or values[-1] < values[0] else ", within its interval"
        change = 100 * (values[-1] - values[0])
        text = f"Held-out accuracy went from {values[0]:.3f} to {values[-1]:.3f} ({change:+.1f} points{sure})"
        best = max(values)
        return text + (f"; it had been {best:.3f}." if best - values[-1] >= 0.03 else ".")
    key = CLEAN if CLEAN in run.metrics else OBSERVED
    curve = run.metrics.curve(key)
    if not len(curve):
        return "Neither accuracy nor reward was recorded."
    name = "clean" if key == CLEAN else "observed"
    return (
        f"The mean {name} reward went from {fmean(curve.early):.3f} to {fmean(curve.late):.3f}; nothing was held out."
    )


def _accuracies(run: RunRecord) -> list[tuple[str, str]]:
    rows = []
    for split in run.metrics.splits:
        key = f"eval/{split}/accuracy"
        values = run.metrics.curve(key).values
        low, high = run.metrics.curve(f"{key}_low").values, run.metrics.curve(f"{key}_high").values
        if values:
            end = with_interval(values[-1], (low[-1], high[-1]) if low and high else None)
            rows.append((f"held-out accuracy, {split}", f"{values[0]:.3f} → {end}"))
    return rows


def _rewards(run: RunRecord) -> list[tuple[str, str]]:
    rows = []
    for key, name in ((OBSERVED, "observed reward"), (CLEAN, "clean reward")):
        curve = run.metrics.curve(key)
        known = f"{fmean(curve.early):.3f} → {fmean(curve.late):.3f}" if len(curve) else "not recorded"
        rows.append((name, known))
    return rows


def _noise(run: RunRecord) -> list[tuple[str, str]]:
    rows = []
    for kind in ("false_positive_rate", "false_negative_rate"):
        name = kind.replace("_", " ")
        estimate = run.metrics.last(f"trust/{kind}")
        if math.isfinite(estimate):
            ends = run.metrics.last(f"trust/{kind}_low"), run.metrics.last(f"trust/{kind}_high")
            rows.append((f"{name}, estimated", with_interval(estimate, ends)))
        seen = run.metrics.curve(f"reward/{kind}")
        if len(seen):
            rows.append((f"{name}, seen", f"{fmean(seen.values):.3f}"))
    return rows or [("error rates of the reward", "not recorded: no true score is known")]


def _time(run: RunRecord) -> list[tuple[str, str]]:
    seconds = run.metrics.total("time/step_s")
    tokens = run.metrics.total("rollout/num_response_tokens")
    if not seconds:
        return []
    waits = run.metrics.total("time/wait_s")
    return [
        ("time in steps", f"{format_duration(seconds)} ({tokens / seconds:.0f} response tokens/s)"),
        ("learner waited for responses", f"{waits / seconds:.0%} of the time"),
    ]


def _labels(run: RunRecord) -> list[tuple[str, str]]:
    ledger = run.ledger
    if ledger is None:
        return []
    dropped = sum(ledger.dropped.values())
    rows = [("samples", f"{ledger.states.get('trained', 0):,} trained, {dropped:,} dropped")]
    if ledger.num_gold:
        rows.append(("true scores looked at", f"{ledger.num_gold:,}"))
    rows.append(("times a prompt was trained on", f"{ledger.repeats:.1f}"))
    return rows
