"""The report of a study: Markdown made from the lines of cells.jsonl and the study's file, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster.study.config import Cell, StudyConfig
from cluster.study.outcomes import Curve, area, classify, gap_closed, matched, worst_drop
from cluster.study.regret import Regret, regret_lines, regret_of
from cluster.study.results import CellResult
from cluster.study.statistics import (
    Estimate,
    Scores,
    mean_interval,
    share_of_gap,
    simultaneous_differences,
    stratified_bootstrap,
)
from cluster.study.untrained import with_no_rl

FILE = "report.md"
Results = Mapping[Cell, CellResult]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """All methods on one task under one noise, with the seeds that every one of them has run.

    Attributes:
        results: by method, in the order of ``seeds``.
        clean: the same seeds and methods under clean rewards; empty where the study has none.
        missing: cells that are not done, or failed: ``METHOD seed N``.
    """

    task: str
    noise: str
    seeds: tuple[int, ...]
    results: dict[str, list[CellResult]]
    clean: dict[str, list[CellResult]]
    missing: tuple[str, ...]


def blocks(study: StudyConfig, results: Results) -> list[Block]:
    """One for each task and noise. Only whole pairs are compared: a seed that one method lacks is left out of all."""
    found = []
    for task in study.axes.task:
        for noise in study.axes.noise:

            def good(method: str, seed: int, noise: str, task: str = task) -> CellResult | None:
                result = results.get(Cell(algorithm=method, task=task, noise=noise, seed=seed))
                return result if result is not None and result.error is None and result.curve else None

            methods, clean = list(study.axes.algorithm), study.report.clean
            has_clean = clean is not None and clean != noise
            seeds, missing = [], []
            for seed in study.seeds:
                lacking = [method for method in methods if good(method, seed, noise) is None]
                missing += [f"{method} seed {seed}" for method in lacking]
                if not lacking:
                    seeds.append(seed)
            by_method = {m: [r for seed in seeds if (r := good(m, seed, noise))] for m in methods}
            references = {m: [r for seed in seeds if clean and (r := good(m, seed, clean))] for m in methods}
            whole = has_clean and all(len(found) == len(seeds) for found in references.values())
            found.append(
                Block(
                    task=task,
                    noise=noise,
                    seeds=tuple(seeds),
                    results=by_method,
                    clean=references if whole else {},
                    missing=tuple(missing),
                )
            )
    return found


def curve_of(result: CellResult, metric: str, by: str = "samples") -> Curve:
    """A cell's learning curve; ``by`` is the attribute of its points that is the place."""
    values = result.values(metric)
    known = [(float(getattr(p, by)), v) for p, v in zip(result.curve, values, strict=True) if np.isfinite(v)]
    places, scores = zip(*known, strict=True)
    return Curve(places, scores)


def report_lines(study: StudyConfig, results: Results) -> list[str]:
    """The whole page, line by line."""
    study, results = with_no_rl(study, results)
    percent = f"{100 * study.report.confidence:g} %"
    lines = [
        f"# Study {Path(study.output).name}",
        "",
        f"Made by `dvpo study --report` from {len(results)} lines of `cells.jsonl`. Intervals are {percent} over "
        f"seeds, and paired differences to `{study.baseline}` hold for all methods of a table at "
        "once. What the columns mean: docs/study.md.",
    ]
    for block in blocks(study, results):
        lines += ["", f"## {block.task}, {block.noise}", "", *_seed_lines(block)]
        for metric in study.metrics if block.seeds else ():
            lines += ["", f"### {metric}", "", *_table(study, block, metric)]
    if len(study.axes.task) > 1:
        lines += _across_tasks(study, results)
    if study.report.regret_of is not None:
        lines += regret_lines(study.report.regret_of, _regrets(study, results, study.report.regret_of))
    return lines


def _regrets(study: StudyConfig, results: Results, method: str) -> list[Regret]:
    """Of each task, noise and metric with a whole seed."""
    excluded = frozenset(study.report.bounds)
    return [
        regret_of(f"{one.task}, {one.noise}, {metric}", _final_scores(one, metric, "samples"), method, excluded)
        for one in blocks(study, results)
        for metric in study.metrics
        if one.seeds and _is_known(one, metric)
    ]


def _is_known(block: Block, metric: str) -> bool:
    """Whether every run has a value of the metric."""
    return all(np.isfinite(one.values(metric)).any() for results in block.results.values() for one in results)


def _seed_lines(block: Block) -> list[str]:
    notes = [f"Left out or missing: {', '.join(block.missing)}.", ""] if block.missing else []
    if not block.seeds:
        return [*notes, "No seed has been run by every method yet."]
    return [*notes, f"{len(block.seeds)} seeds: {', '.join(map(str, block.seeds))}."]


def _table(study: StudyConfig, block: Block, metric: str) -> list[str]:
    """One line for each method, about one metric."""
    options = study.report
    if not _is_known(block, metric):
        return ["Some runs have no value of it."]
    finals = _final_scores(block, metric, "samples")
    by_samples = _differences(study, finals)
    by_time = _differences(study, _final_scores(block, metric, "train_s"))
    lines = [
        "| method | final score | difference | equal time | area | worst drop | gap closed | outcomes | core s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method, results in block.results.items():
        curves = [curve_of(result, metric) for result in results]
        gap, outcomes = _against_clean(block, method, curves, metric)
        row = [
            method,
            _shown(mean_interval(finals[method], options.confidence)),
            _shown(by_samples.get(method), signed=True),
            _shown(by_time.get(method), signed=True),
            f"{np.mean([area(curve) for curve in curves]):.3f}",
            f"{np.mean([worst_drop(curve) for curve in curves]):.3f}",
            _share_of_gap(study, finals, method) or gap,
            outcomes,
            f"{np.mean([result.cpu_s or np.nan for result in results]):.0f}".replace("nan", ""),
        ]
        lines.append(f"| {' | '.join(row)} |")
    return lines


def _share_of_gap(study: StudyConfig, finals: dict[str, Scores], method: str) -> str:
    """Of the way between the two methods of ``report.gap``; empty without, and of those two themselves."""
    options, gap = study.report, study.report.gap
    if gap is None or method in (gap.floor, gap.ceiling):
        return ""
    floor, ceiling = finals[gap.floor], finals[gap.ceiling]
    return _shown(share_of_gap(finals[method], floor, ceiling, options.confidence, options.num_resamples), digits=2)


def _final_scores(block: Block, metric: str, by: str) -> dict[str, Scores]:
    """By method, for each seed the score at the last place that all methods have reached with this seed."""
    scores: dict[str, list[float]] = {method: [] for method in block.results}
    for index in range(len(block.seeds)):
        curves = matched([curve_of(results[index], metric, by) for results in block.results.values()])
        for method, curve in zip(block.results, curves, strict=True):
            scores[method].append(curve.scores[-1])
    return {method: np.asarray(values) for method, values in scores.items()}


def _differences(study: StudyConfig, scores: dict[str, Scores]) -> dict[str, Estimate]:
    options = study.report
    return simultaneous_differences(scores, study.baseline, options.confidence, options.num_resamples)


def _against_clean(block: Block, method: str, curves: Sequence[Curve], metric: str) -> tuple[str, str]:
    """Gap closed and the count of each outcome; empty without clean runs."""
    if method not in block.clean:
        return "", ""
    pairs = list(zip(curves, (curve_of(result, metric) for result in block.clean[method]), strict=True))
    outcomes = [found.value for curve, clean in pairs if (found := classify(curve, clean)) is not None]
    counts = ", ".join(f"{outcomes.count(name)} {name}" for name in dict.fromkeys(sorted(outcomes)))
    gaps = [gap for curve, clean in pairs if np.isfinite(gap := gap_closed(curve, clean))]
    return f"{np.mean(gaps):.2f}" if gaps else "", counts


def _across_tasks(study: StudyConfig, results: Results) -> list[str]:
    """Interquartile means over tasks and seeds, for each noise; only with seeds that every task has."""
    metric, options = study.metrics[0], study.report
    lines = ["", "## All tasks", "", "| noise | method | interquartile mean | seeds |", "|---|---|---|---|"]
    found = blocks(study, results)
    for noise in study.axes.noise:
        of_noise = [block for block in found if block.noise == noise]
        seeds = [seed for seed in study.seeds if all(seed in block.seeds for block in of_noise)]
        for method in study.axes.algorithm if seeds else ():
            table = np.array(
                [[_score(block, method, seed, metric) for block in of_noise] for seed in seeds], dtype=np.float64
            )
            estimate = stratified_bootstrap(table, options.confidence, options.num_resamples)
            lines.append(f"| {noise} | {method} | {_shown(estimate)} | {len(seeds)} |")
    return lines


def _score(block: Block, method: str, seed: int, metric: str) -> float:
    return curve_of(block.results[method][block.seeds.index(seed)], metric).scores[-1]


def _shown(estimate: Estimate | None, signed: bool = False, digits: int = 3) -> str:
    """``.912 [.905, .919]``; in bold where a difference's interval excludes 0."""
    if estimate is None:
        return "baseline"
    form = f"+.{digits}f" if signed else f".{digits}f"
    text = f"{estimate.value:{form}}"
    if np.isfinite(estimate.low):
        text += f" [{estimate.low:{form}}, {estimate.high:{form}}]"
    return f"**{text}**" if signed and estimate.excludes_zero else text


def write_report(study: StudyConfig, results: Results) -> Path:
    """Write the page into the study's folder; returns where."""
    path = Path(study.output) / FILE
    path.write_text("\n".join(report_lines(study, results)) + "\n", encoding="utf-8")
    return path
