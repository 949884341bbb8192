"""The closing table of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.recording.sinks import read_metrics
from cluster.config.run_config import RunConfig
from cluster.display.report import Row, intervals, with_interval


def summary_rows(config: RunConfig, run_dir: Path, result: Mapping[str, Any]) -> list[Row]:
    """Accuracy before and after, noise seen, throughput, and where everything is.

    Args:
        result: what the controller returned: ``checkpoint``, ``step``, ``initial_accuracy``, ``final_accuracy``.
    """
    records = read_metrics(run_dir / "metrics.jsonl")
    # An evaluation before the first step has a line of its own.
    steps = [record for record in records if "time/step_s" in record]
    return [
        ("steps", f"{result['step']} of {config.training.num_steps}"),
        *_accuracy_rows(result["initial_accuracy"], result["final_accuracy"], records),
        *_training_rows(steps),
        *_noise_rows(steps),
        *_speed_rows(steps),
        ("checkpoint", str(result["checkpoint"])),
        ("metrics", str(run_dir / "metrics.jsonl")),
        ("logs", str(run_dir / "logs") if config.cluster.address is None else "with Ray"),
    ]


def _accuracy_rows(
    before: Mapping[str, float], after: Mapping[str, float], records: Sequence[Mapping[str, float]]
) -> list[Row]:
    """In-domain is the task's first split, out-of-domain the one of that name; others may be either."""
    rows = []
    evaluated = [intervals(record) for record in records if any(key.startswith("eval/") for key in record)]
    first, last = (evaluated[0], evaluated[-1]) if evaluated else ({}, {})
    for index, (split, start) in enumerate(before.items()):
        kind = ", in-domain" if index == 0 else ", out-of-domain" if split == "ood" else ""
        end = after.get(split)
        key, change = f"eval/{split}/accuracy", ""
        if end is not None:
            change = f" -> {with_interval(end, last.get(key))} ({100 * (end - start):+.1f} points)"
        rows.append((f"clean accuracy{kind} ({split})", f"{with_interval(start, first.get(key))}{change}"))
    return rows


def _training_rows(steps: Sequence[Mapping[str, float]]) -> list[Row]:
    """The rewards of the first and of the last batch."""
    rows = []
    for key, label in (("reward/observed_mean", "observed"), ("reward/clean_mean", "clean")):
        told = [with_interval(record[key], intervals(record).get(key)) for record in steps if key in record]
        if told:
            rows.append((f"{label} reward in training", told[0] if len(told) == 1 else f"{told[0]} -> {told[-1]}"))
    return rows


def _noise_rows(steps: Sequence[Mapping[str, float]]) -> list[Row]:
    names = {
        "reward/corrupted_frac": "scores changed by noise",
        "reward/false_positive_rate": "false positive rate seen",
        "reward/false_negative_rate": "false negative rate seen",
    }
    found = {label: _mean(steps, key) for key, label in names.items()}
    return [(label, f"{value:.3f}") for label, value in found.items() if math.isfinite(value)]


def _speed_rows(steps: Sequence[Mapping[str, float]]) -> list[Row]:
    if not steps:
        return []
    seconds = sum(record["time/step_s"] for record in steps)
    tokens = sum(record["rollout/num_response_tokens"] for record in steps)
    return [
        ("throughput", f"{tokens / seconds:.0f} response tokens/s, {seconds / len(steps):.2f} s a step"),
        ("generating and training at once", f"{100 * _mean(steps, 'time/overlap_frac'):.0f} % of the time"),
        ("staleness", f"{_mean(steps, 'rollout/staleness_mean'):.2f} updates on average"),
    ]


def _mean(records: Sequence[Mapping[str, float]], key: str) -> float:
    values = [record[key] for record in records if math.isfinite(record.get(key, math.nan))]
    return sum(values) / len(values) if values else math.nan
