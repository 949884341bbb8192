"""``dvpo compare``: what sets runs apart, how well each did, and how sure the difference is.

Runs that differ by their seed only are one group. Differences are taken between runs of one seed, at the samples that
all groups have reached with it, as ``dvpo study`` does; intervals rest on seeds, by :mod:`cluster.study.statistics`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from cluster.display.printable import one_line
from cluster.display.report import with_interval
from cluster.report.diagnosis.signals import CLEAN, OBSERVED
from cluster.report.metric_table import Curve
from cluster.report.run_groups import Group, differing_settings, group_runs
from cluster.report.run_record import RunRecord
from cluster.study.outcomes import Curve as LearningCurve
from cluster.study.outcomes import matched
from cluster.study.statistics import Estimate, mean_interval, simultaneous_differences
from rollout.component.mistakes import UnknownName

CONFIDENCE = 0.95
MAX_SETTING = 60
"""Letters of a setting's value in the table for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupScore:
    """One metric of one group of runs, by seed in the order of the group's runs.

    Attributes:
        label: of the group.
        finals: at the end of each run.
        bests: the highest that each run had.
        final, best: their means over the runs, with t intervals over seeds where there are several.
        own_interval: exact interval of a single run's accuracy over its held-out prompts, or None.
        difference: to the first group, over seeds that all groups have, at equal samples; None for that group itself,
            and where there is no such seed.
        num_pairs: seeds that it rests on.
    """

    label: str
    finals: tuple[float, ...]
    bests: tuple[float, ...]
    final: Estimate
    best: Estimate
    own_interval: tuple[float, float] | None
    difference: Estimate | None
    num_pairs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: name, folder, seed and steps of each run, by group.
        groups: labels; the first is what the others are compared with.
        settings: those that differ: key, and each group's value, '-' where it is not there.
        scores: by metric, one entry a group.
        notes: what a reader has to know of it, a sentence each.
    """

    runs: tuple[tuple[dict[str, Any], ...], ...]
    groups: tuple[str, ...]
    settings: tuple[tuple[str, tuple[str, ...]], ...]
    scores: dict[str, tuple[GroupScore, ...]]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Everything; numbers that are not known are None."""
        return {
            "groups": [
                {"label": label, "runs": list(runs)} for label, runs in zip(self.groups, self.runs, strict=True)
            ],
            "settings": [{"key": key, "values": list(values)} for key, values in self.settings],
            "metrics": {
                key: [{name: _json(value) for name, value in asdict(score).items()} for score in scores]
                for key, scores in self.scores.items()
            },
            "confidence": CONFIDENCE,
            "notes": list(self.notes),
        }


def compare_runs(runs: Sequence[RunRecord], metrics: Sequence[str] = ()) -> Comparison:
    """Compare runs; the first one's group is the baseline.

    Args:
        metrics: keys of docs/metrics.md; by default the held-out accuracies, and without any the mean rewards.

    Raises:
        UserError: a metric is in none of the runs.
    """
    groups = group_runs(runs)
    keys = list(metrics) or _default_metrics(runs)
    for key in keys:
        if not any(key in run.metrics for run in runs):
            near = difflib.get_close_matches(key, {known for run in runs for known in run.metrics.keys}, 3)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "docs/metrics.md has all keys"
            raise UnknownName(f"--metric: no run has {key!r}; {hint}")
    scores = {key: _scores(key, runs, groups) for key in keys}
    return Comparison(
        runs=tuple(tuple(_named(runs[number]) for number in group.members) for group in groups),
        groups=tuple(group.label for group in groups),
        settings=tuple((key, tuple(values)) for key, values in differing_settings(runs, groups)),
        scores=scores,
        notes=tuple(_notes(runs, groups, scores)),
    )


def _default_metrics(runs: Sequence[RunRecord]) -> list[str]:
    splits = dict.fromkeys(split for run in runs for split in run.metrics.splits)
    rewards = [key for key in (CLEAN, OBSERVED) if any(key in run.metrics for run in runs)]
    return [f"eval/{split}/accuracy" for split in splits] or rewards


def _named(run: RunRecord) -> dict[str, Any]:
    return {
        "name": run.name,
        "folder": str(run.folder),
        "seed": run.settings.get("seed"),
        "step": run.metrics.last_step,
    }


def _at_end(key: str, curve: Curve) -> float:
    """An evaluation is about many prompts; of what each batch has, one batch alone says little."""
    if not len(curve):
        return math.nan
    return curve.values[-1] if key.startswith("eval/") else fmean(curve.late)


def _at_best(key: str, curve: Curve) -> float:
    if not len(curve):
        return math.nan
    return max(curve.values) if key.startswith("eval/") else curve.best


def _scores(key: str, runs: Sequence[RunRecord], groups: Sequence[Group]) -> tuple[GroupScore, ...]:
    differences, num_pairs = _differences(key, runs, groups)
    found = []
    for number, group in enumerate(groups):
        members = [runs[member] for member in group.members]
        finals = tuple(_at_end(key, run.metrics.curve(key)) for run in members)
        bests = tuple(_at_best(key, run.metrics.curve(key)) for run in members)
        found.append(
            GroupScore(
                label=group.label,
                finals=finals,
                bests=bests,
                final=_mean(finals),
                best=_mean(bests),
                own_interval=_own_interval(key, members[0]) if len(members) == 1 else None,
                difference=differences.get(str(number)),
                num_pairs=num_pairs if number else 0,
            )
        )
    return tuple(found)


def _mean(scores: Sequence[float]) -> Estimate:
    known = np.array([score for score in scores if math.isfinite(score)])
    return mean_interval(known, CONFIDENCE) if len(known) else Estimate(math.nan, math.nan, math.nan)


def _own_interval(key: str, run: RunRecord) -> tuple[float, float] | None:
    """The interval of the last value; a later value without one (scores that are not 0 or 1) has none."""
    value, low, high = (run.metrics.curve(f"{key}{end}") for end in ("", "_low", "_high"))
    known = len(value) and value.steps[-1:] == low.steps[-1:] == high.steps[-1:]
    return (low.values[-1], high.values[-1]) if known else None


def _differences(key: str, runs: Sequence[RunRecord], groups: Sequence[Group]) -> tuple[dict[str, Estimate], int]:
    """Of each group, by its number, to the first; and how many seeds they rest on, which are those that all have."""
    by_seed = [_by_seed(runs, group, key) for group in groups]
    seeds = [seed for seed in by_seed[0] if all(seed in others for others in by_seed)]
    if not seeds:
        return {}, 0
    per_step = _samples_per_step(runs)
    pairs = []
    for seed in seeds:
        members = [table[seed] for table in by_seed]
        curves = matched([_by_samples(runs[number], key, per_step[number]) for number in members])
        pairs.append([_at_end(key, Curve(tuple(map(int, curve.places)), curve.scores)) for curve in curves])
    scores = {str(number): np.array([pair[number] for pair in pairs]) for number in range(len(groups))}
    return simultaneous_differences(scores, "0", CONFIDENCE), len(seeds)


def _by_seed(runs: Sequence[RunRecord], group: Group, key: str) -> dict[Any, int]:
    """Numbers of a group's runs by seed, of those that have the metric."""
    seeds = {runs[number].settings.get("seed"): number for number in group.members if key in runs[number].metrics}
    return {seed: number for seed, number in seeds.items() if seed is not None}


def _samples_per_step(runs: Sequence[RunRecord]) -> list[int]:
    """Trajectories of one step of each run; all 1, so that steps are compared, where one is not known."""
    names = ("training.prompts_per_step", "training.samples_per_prompt")
    found = [[run.settings.get(name) for name in names] for run in runs]
    if not all(isinstance(value, int) and value > 0 for values in found for value in values):
        return [1] * len(runs)
    return [prompts * samples for prompts, samples in found]


def _by_samples(run: RunRecord, key: str, per_step: int) -> LearningCurve:
    curve = run.metrics.curve(key)
    points = dict(zip(curve.steps, curve.values, strict=True))  # of two lines of one step the later one
    return LearningCurve(tuple(float(step * per_step) for step in points), tuple(points.values()))


def _notes(
    runs: Sequence[RunRecord], groups: Sequence[Group], scores: Mapping[str, Sequence[GroupScore]]
) -> Iterator[str]:
    if len(groups) == 1:
        yield "All runs have the same settings but for the seed, so there is nothing to compare them with."
    elif any(score.num_pairs == 0 for found in scores.values() for score in found[1:]):
        yield "Where no seed was run with all settings there are no pairs, and no difference is given."
    elif any(score.num_pairs == 1 for found in scores.values() for score in found[1:]):
        yield "One seed says nothing of how another one would end: differences of one pair have no interval."
    unfinished = [run.name for run in runs if run.num_steps is not None and run.metrics.last_step < run.num_steps]
    if unfinished:
        yield f"Not at their end: {', '.join(unfinished)}."
    if any(not run.settings.values for run in runs):
        yield "Of a run without a readable config.yaml the settings are not known; it stands alone."


def _json(value: Any) -> Any:
    """With None for what JSON has no form for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _json(inner) for name, inner in value.items()}
    return [_json(inner) for inner in value] if isinstance(value, list | tuple) else value


def comparison_lines(found: Comparison) -> list[str]:
    """The comparison for people."""
    lines = []
    for label, runs in zip(found.groups, found.runs, strict=True):
        seeds = ", ".join(str(run["seed"]) for run in runs if run["seed"] is not None)
        lines.append(f"{label}: {', '.join(run['folder'] for run in runs)}" + (f" (seed {seeds})" if seeds else ""))
    if len(found.groups) > 1:
        rows = [(key, *(one_line(value, MAX_SETTING) for value in values)) for key, values in found.settings]
        lines += ["", *_columns([("settings that differ", *found.groups), *rows])]
        if not found.settings:
            lines.append("none: these runs have one seed and the same settings")
    for key, scores in found.scores.items():
        several = [f"difference to {found.groups[0]}"] if len(found.groups) > 1 else []
        rows = [(score.label, *_shown(score)[: 2 + len(several)]) for score in scores]
        lines += ["", *_columns([(key, "final", "best", *several), *rows])]
    lines += ["", *_legend(found)]
    return lines


def _legend(found: Comparison) -> list[str]:
    lines = [
        "final: the last evaluation, or the mean of the last fifth of what every batch has; best: the highest so far,",
        "which is flattered by having been chosen. Brackets: intervals of 95 %, over seeds where a group has several,",
        "else over held-out prompts. Differences: means over pairs of one seed (their number), at equal samples; their",
        "intervals rest on seeds and hold for all lines of a table at once; * where one excludes 0.",
    ]
    return [*lines, *found.notes]


def _shown(score: GroupScore) -> tuple[str, str, str]:
    final = with_interval(score.final.value, _ends(score.final) or score.own_interval)
    best = with_interval(score.best.value, _ends(score.best))
    if score.difference is None:
        return final, best, "" if score.num_pairs else "-"
    ends = _ends(score.difference)
    interval = f" [{ends[0]:+.3f}, {ends[1]:+.3f}]" if ends else ""
    mark = " *" if ends and score.difference.excludes_zero else ""
    return final, best, f"{score.difference.value:+.3f}{interval}{mark} ({score.num_pairs})"


def _ends(estimate: Estimate) -> tuple[float, float] | None:
    return (estimate.low, estimate.high) if math.isfinite(estimate.low) else None


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
