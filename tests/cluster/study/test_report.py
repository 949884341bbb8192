"""Lines of cells.jsonl, and the page that is made of them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from cluster.config.run_config import RunConfig
from cluster.study.cells import PlannedCell
from cluster.study.config import Cell, StudyConfig
from cluster.study.report import blocks, report_lines, write_report
from cluster.study.results import FILE, CellResult, Point, ResultFile, read_curve, read_results
from cluster.study.runner import Queue
from rollout.component import UserError

METRIC = "eval/test/accuracy"
SEEDS = (0, 1, 2)
FINALS = {
    ("ppo", "clean"): (0.90, 0.92, 0.94),
    ("dvpo", "clean"): (0.90, 0.90, 0.90),
    ("ppo", "flips"): (0.60, 0.70, 0.65),
    ("dvpo", "flips"): (0.80, 0.85, 0.88),
}


def study_in(folder: Path) -> StudyConfig:
    axes: dict[str, dict[str, dict[str, int]]] = {
        "algorithm": {"ppo": {}, "dvpo": {}},
        "noise": {"clean": {}, "flips": {}},
    }
    report = {"clean": "clean", "num_resamples": 1000}
    return StudyConfig.model_validate(
        {"base": "b.yaml", "output": str(folder), "axes": axes, "seeds": list(SEEDS), "report": report}
    )


def result(method: str, noise: str, seed: int, last: float, samples: int = 80, **fields: object) -> CellResult:
    curve = [
        {"step": 0, "samples": 0, "train_s": 0.0, "values": {METRIC: 0.5}},
        {"step": 5, "samples": samples // 2, "train_s": 4.0, "values": {METRIC: (0.5 + last) / 2}},
        {"step": 10, "samples": samples, "train_s": 8.0 + seed, "values": {METRIC: last}},
    ]
    cell = {"algorithm": method, "task": "base", "noise": noise, "seed": seed}
    data = {"cell": cell, "fingerprint": "f", "wall_s": 9.0, "cpu_s": 7.0, "curve": curve, **fields}
    return CellResult.model_validate(data)


def all_results() -> dict[Cell, CellResult]:
    found = [result(*key, seed, FINALS[key][seed]) for key in FINALS for seed in SEEDS]
    return {one.cell: one for one in found}


def rows(lines: list[str], title: str) -> dict[str, list[str]]:
    """Cells of the table under a title, by method."""
    below = lines[lines.index(title) :]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in below if line.startswith("|")]
    return {row[0]: row[1:] for row in table[2:4]}


def test_a_table_has_means_and_paired_differences(tmp_path: Path) -> None:
    lines = report_lines(study_in(tmp_path), all_results())
    table = rows(lines, "## base, flips")
    ppo, dvpo = (np.array(FINALS[method, "flips"]) for method in ("ppo", "dvpo"))
    low, high = stats.t.interval(0.95, 2, loc=dvpo.mean(), scale=stats.sem(dvpo))
    assert table["dvpo"][0] == f"{dvpo.mean():.3f} [{low:.3f}, {high:.3f}]"
    low, high = stats.ttest_rel(dvpo, ppo).confidence_interval(0.95)
    assert low > 0
    assert table["dvpo"][1] == f"**{(dvpo - ppo).mean():+.3f} [{low:+.3f}, {high:+.3f}]**"
    assert table["ppo"][1] == "baseline"
    assert table["dvpo"][4] == "0.000"
    gaps = [(last - 0.5) / 0.4 for last in FINALS["dvpo", "flips"]]
    assert table["dvpo"][5] == f"{np.mean(gaps):.2f}"
    assert table["dvpo"][6] == "2 delay, 1 reached"
    assert table["dvpo"][7] == "7"
    assert rows(lines, "## base, clean")["ppo"][5:7] == ["", ""]


def test_the_way_between_two_methods(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    gap = {"floor": "ppo", "ceiling": "dvpo"}
    axes = study.axes.model_copy(update={"algorithm": {"ppo": {}, "ours": {}, "dvpo": {}}})
    report = study.report.model_validate({"gap": gap, "num_resamples": 1000})
    study = study.model_copy(update={"axes": axes, "report": report})
    ours = [result("ours", noise, seed, 0.7 + 0.02 * seed) for noise in study.axes.noise for seed in SEEDS]
    lines = report_lines(study, all_results() | {one.cell: one for one in ours})
    below = lines[lines.index("## base, flips") :]
    shown = {line.split("|")[1].strip(): line.split("|")[7].strip() for line in below if line.startswith("| ")}
    ppo, dvpo = (np.array(FINALS[method, "flips"]) for method in ("ppo", "dvpo"))
    made, whole = np.array([0.7, 0.72, 0.74]) - ppo, dvpo - ppo
    draws = np.array(list(itertools.product(range(3), repeat=3)))  # every resample that there is
    shares = made[draws].mean(axis=1) / whole[draws].mean(axis=1)  # 27, so each end has more than 2.5 %
    value, ends = shown["ours"].split(" ", 1)
    assert value == f"{made.mean() / whole.mean():.2f}"
    assert [float(end) for end in ends.strip("[]").split(", ")] == pytest.approx(
        [shares.min(), shares.max()], abs=0.006
    )
    assert (shown["ppo"], shown["dvpo"]) == ("", "")
    with pytest.raises(ValueError, match=r"report\.gap\.floor: 'no' is none of ppo, dvpo"):
        StudyConfig.model_validate(study_in(tmp_path).model_dump() | {"report": {"gap": gap | {"floor": "no"}}})


def test_each_metric_has_a_table(tmp_path: Path) -> None:
    study = study_in(tmp_path).model_copy(update={"metrics": (METRIC, "eval/ood/accuracy", "policy/nothing")})
    results = all_results()
    for one in results.values():
        for point in one.curve:
            point.values["policy/nothing"] = None
            point.values["eval/ood/accuracy"] = (point.values[METRIC] or 0.0) - 0.25
    lines = report_lines(study, results)
    flips = lines[lines.index("## base, flips") :]
    inside = rows(flips, f"### {METRIC}")["dvpo"]
    outside = rows(flips, "### eval/ood/accuracy")["dvpo"]
    assert float(inside[0].split()[0]) - float(outside[0].split()[0]) == pytest.approx(0.25, abs=1e-9)
    assert inside[1] == outside[1]  # differences are the same
    assert flips[flips.index("### policy/nothing") + 2] == "Some runs have no value of it."


def test_only_seeds_of_all_methods_are_compared(tmp_path: Path) -> None:
    results = all_results()
    lost = Cell(algorithm="dvpo", task="base", noise="flips", seed=1)
    results[lost] = result("dvpo", "flips", 1, 0.1, error="it died")
    block = blocks(study_in(tmp_path), results)[1]
    assert (block.noise, block.seeds, block.missing) == ("flips", (0, 2), ("dvpo seed 1",))
    lines = report_lines(study_in(tmp_path), results)
    assert "Left out or missing: dvpo seed 1." in lines
    assert rows(lines, "## base, flips")["ppo"][0].startswith("0.625 [")


def test_scores_are_compared_at_equal_samples(tmp_path: Path) -> None:
    """Of a method that has trained on twice as many, what it had half way."""
    results = all_results()
    for seed in SEEDS:
        longer = result("dvpo", "flips", seed, 0.9, samples=160)
        results[longer.cell] = longer
    table = rows(report_lines(study_in(tmp_path), results), "## base, flips")
    assert table["dvpo"][0] == "0.700 [0.700, 0.700]"


def test_nothing_to_compare_yet(tmp_path: Path) -> None:
    lines = report_lines(study_in(tmp_path), {})
    assert lines.count("No seed has been run by every method yet.") == 2


def test_the_page_comes_from_the_lines_alone(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    file = ResultFile(tmp_path)
    for one in all_results().values():
        file.add(one)
    file.close()
    first = write_report(study, read_results(tmp_path)).read_text()
    assert first == write_report(study, read_results(tmp_path)).read_text()
    assert first.splitlines() == report_lines(study, all_results())


def test_half_a_line_is_removed_and_failures_are_forgotten(tmp_path: Path) -> None:
    good, bad = result("ppo", "clean", 0, 0.9), result("dvpo", "clean", 0, 0.9, error="no")
    file = ResultFile(tmp_path)
    file.add(good)
    file.add(bad)
    file.close()
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole + whole[:40])
    again = ResultFile(tmp_path)
    assert (tmp_path / FILE).read_bytes() == whole
    assert set(again.results) == {good.cell, bad.cell}
    again.forget([bad.cell])
    again.add(result("ppo", "clean", 1, 0.9))
    again.close()
    assert [one.cell.seed for one in read_results(tmp_path).values()] == [0, 1]


def test_two_lines_of_one_cell(tmp_path: Path) -> None:
    line = result("ppo", "clean", 0, 0.9).model_dump_json() + "\n"
    (tmp_path / FILE).write_text(2 * line)
    with pytest.raises(UserError, match=r"cells\.jsonl:2: a second result of cell base/clean/ppo/seed-0"):
        read_results(tmp_path)


def test_a_curve_counts_training_seconds_without_evaluations(tmp_path: Path) -> None:
    lines = [
        {"step": 0, METRIC: 0.5, "time/eval_s": 3.0},
        {"step": 1, "time/step_s": 2.0, "critic/explained_variance": 0.1},
        {"step": 2, "time/step_s": 5.0, METRIC: None, "time/eval_s": 3.5, "critic/explained_variance": 0.2},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    planned = _planned()
    points = read_curve(tmp_path, planned, [METRIC, "critic/explained_variance"])
    assert points == (
        Point(step=0, samples=0, train_s=0.0, values={METRIC: 0.5, "critic/explained_variance": None}),
        Point(step=2, samples=2 * 12, train_s=3.5, values={METRIC: None, "critic/explained_variance": 0.2}),
    )
    with pytest.raises(UserError, match="'eval/ood/accuracy' is not measured by an evaluation; there are eval/test"):
        read_curve(tmp_path, planned, ["eval/ood/accuracy"])


def test_a_slot_keeps_to_its_engine_while_there_are_cells_for_it() -> None:
    queue = Queue([_planned(engine="a"), _planned(engine="b", seed=1), _planned(engine="a", seed=2)])
    engines = []
    engine: str | None = None
    while (taken := queue.take(engine)) is not None:
        engine = taken.engine
        engines.append(engine)
    assert engines == ["a", "a", "b"]


def _planned(engine: str = "a", seed: int = 0) -> PlannedCell:
    training = {"prompts_per_step": 6, "samples_per_prompt": 2}
    config = RunConfig.model_validate({"model": {"path": "m"}, "training": training})
    cell = Cell(algorithm="ppo", task="base", noise="base", seed=seed)
    return PlannedCell(cell=cell, config=config, fingerprint="f", engine=engine)


def test_no_rl_is_a_row_of_what_every_cell_evaluates_first(tmp_path: Path) -> None:
    plain = study_in(tmp_path)
    report = plain.report.model_copy(update={"no_rl": True, "baseline": "ppo"})
    study = plain.model_copy(update={"report": report})
    lines = report_lines(study, all_results())
    below = lines[lines.index("## base, flips") :]
    (row,) = [line.strip("| ").split(" | ") for line in below if line.startswith("| no-rl")]
    assert row[1].startswith("0.500") and float(row[2].strip("*").split()[0]) == pytest.approx(0.5 - 0.65, abs=1e-9)
    assert not any("no-rl" in line for line in report_lines(plain, all_results()))
    own: dict[str, dict[str, dict[str, str]]] = {"algorithm": {"ppo": {}, "no-rl": {}}}
    with pytest.raises(ValueError, match="adds a row 'no-rl'"):
        StudyConfig.model_validate({"base": "b", "output": "o", "axes": own, "seeds": [0], "report": {"no_rl": True}})
    with pytest.raises(ValueError, match=r"report\.bounds: 'best' is none of ppo"):
        StudyConfig.model_validate(
            {
                "base": "b",
                "output": "o",
                "axes": {"algorithm": {"ppo": {}}},
                "seeds": [0],
                "report": {"bounds": ["best"]},
            }
        )


def test_regret_is_to_the_best_of_each_cell_and_the_worst_cell_comes_first(tmp_path: Path) -> None:
    plain = study_in(tmp_path)
    for bounds, worst, mean in (((), 0.84333 - 0.65, 0.0966666), (("dvpo",), 0.0, 0.0)):
        report = plain.report.model_copy(update={"regret_of": "ppo", "bounds": bounds})
        lines = report_lines(plain.model_copy(update={"report": report}), all_results())
        below = lines[lines.index("## Regret of ppo") :]
        assert below[2].startswith(
            f"Against the best method of each cell, chosen in hindsight: {100 * mean:.1f} points"
        )
        first, second = (line.strip("| ").split(" | ") for line in below[6:8])
        assert float(first[4]) == pytest.approx(worst, abs=1e-3) and float(second[4]) == 0.0
        if not bounds:
            assert (first[0], first[2], second[2]) == (f"base, flips, {METRIC}", "dvpo", "ppo")
