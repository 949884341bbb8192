"""Reading a run's folder: what is there, what is missing and said, and what is no run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from cluster.report.metric_table import Curve, MetricTable
from cluster.report.run_record import find_run_folder, read_run
from rollout.component import UserError
from tests.cluster.report.made_runs import CONFIG, STEPS, make_ledger, make_run


def test_a_whole_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", events=({"kind": "worker", "text": "lost"},))
    make_ledger(folder, num_prompts=3, repeats=4)
    run = read_run(folder)
    assert (run.name, run.num_steps, run.metrics.last_step, run.error) == ("made", STEPS, STEPS, "")
    assert run.metrics.splits == ["test", "ood"]
    assert len(run.trajectories) == 8 * STEPS
    assert run.settings.get("rollout.sampling.max_response_tokens") == 24
    assert run.settings.get("rollout.none", 5) == 5
    assert [event["text"] for event in run.events_of("worker")] == ["lost"]
    assert run.ledger is not None
    assert (run.ledger.repeats, run.ledger.num_prompts, run.ledger.states) == (4.0, 3, {"trained": 12})
    assert run.ledger.num_gold == 3 * 2  # epochs 1 and 2 of each prompt
    assert list(run.problems) == []


def test_cells_of_logged_trajectories(tmp_path: Path) -> None:
    """Answer 'a' of p-1 was scored in epochs 1, 2: once 1, once 0; 'b' in epochs 0 and 3."""
    folder = make_run(tmp_path / "run", change_sample=lambda step, s: {"trajectory_id": f"p-1#{step % 4}"})
    make_ledger(folder, num_prompts=3, repeats=4)
    ledger = read_run(folder).ledger
    assert ledger is not None
    cells = {name: (cell.num_scores, cell.sum_scores, cell.gold) for name, cell in ledger.cells.items()}
    assert cells == {
        "p-1#0": (2, 1.0, None),
        "p-1#1": (2, 1.0, 1.0),
        "p-1#2": (2, 1.0, 1.0),
        "p-1#3": (2, 1.0, None),
    }


def test_a_run_that_goes_on_has_half_a_last_line(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    for name in ("metrics.jsonl", "trajectories/step-9.jsonl", "events.jsonl"):
        with (folder / name).open("a") as file:
            file.write('{"step": 99, "ti')
    (folder / "status.json").write_text("{")
    run = read_run(folder)
    assert run.metrics.last_step == STEPS
    assert "1 lines of trajectories/ are cut off or of a form that this version does not know" in run.problems
    assert run.status == {}


def test_what_an_earlier_version_did_not_write_is_said(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", with_samples=False)
    (folder / "config.yaml").write_text("- not settings\n")
    problems = read_run(folder).problems
    assert problems[0] == "config.yaml holds no settings"
    assert problems[1].startswith("no trajectories are logged")
    assert problems[2].startswith("there is no ledger")


def test_a_damaged_ledger_is_said(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "ledger.sqlite").write_text("no data base")
    run = read_run(folder)
    assert run.ledger is None
    (problem,) = run.problems
    assert problem.startswith("the ledger cannot be read") and "file is not a database" in problem


def test_how_a_failed_run_ended(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", num_steps=4)
    (folder / "error.txt").write_text("Traceback\n  File\nRuntimeError: no space\n\n")
    assert read_run(folder).error == "RuntimeError: no space"
    (folder / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match=r"has no metrics.jsonl.*; it ended with: RuntimeError: no space"):
        read_run(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no whole line yet"),
        ('{"step": 1, "ti', "has no whole line yet"),
        ('{"loss": 1}\n{"loss": 2}\n', "no metrics of dvpo"),
        ('{"step": 0}\nno json\n{"step": 1}\n', "metrics.jsonl:2: not a JSON object"),
    ],
)
def test_metrics_that_are_none(text: str, message: str, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", with_samples=False)
    (folder / "metrics.jsonl").write_text(text)
    with pytest.raises(UserError, match=message):
        read_run(folder)


def test_where_a_run_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs" / "demo", with_samples=False)
    assert find_run_folder("demo") == Path("runs/demo")
    assert find_run_folder(str(tmp_path / "runs" / "demo")) == tmp_path / "runs" / "demo"
    with pytest.raises(UserError, match=r"no such run: 'dmeo'; did you mean 'demo'"):
        find_run_folder("dmeo")
    with pytest.raises(UserError, match=r"runs is no run: .*; it holds runs, name them: runs/demo"):
        find_run_folder("runs")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file is a file; give the folder of a run"):
        find_run_folder("file")


def test_early_late_best_and_rise() -> None:
    values = tuple(float(i) for i in range(40))
    curve = Curve(tuple(range(40)), values)
    assert curve.early == values[:4] and curve.late == values[32:]
    assert curve.best == 35.5 and curve.rise == 34.0
    assert curve.rise_error == 0.0  # a straight line has no noise
    assert Curve((1, 2), (1.0, 2.0)).rise_error == math.inf


def test_a_curve_leaves_out_what_is_no_number() -> None:
    table = MetricTable([{"step": 1, "a": 1.0}, {"step": 2, "a": math.nan}, {"step": 3, "b": 2.0}])
    assert table.curve("a") == Curve((1,), (1.0,))
    assert table.num_not_finite("a") == 1 and "c" not in table and table.keys == ["a", "b"]
    assert math.isnan(table.late("c")) and table.total("c") == 0.0


def test_token_records_are_read_back(tmp_path: Path) -> None:
    tokens = {
        "texts": ["a", "b"], "sampled": [True, True], "advantages": [0.5, -1.0], "sampler": [-0.1, -0.2],
        "old": [-0.1, -0.2], "new": [-0.05, -0.3], "levels": [0.1, 0.9], "num_left_out": 3,
        "values": [[[0.0, 1.0], [0.5, 0.7]], None],
    }  # fmt: skip
    folder = make_run(tmp_path / "run", change_sample=lambda step, s: {"tokens": tokens, "corrected_reward": 0.25})
    found = read_run(folder).trajectories[0]
    assert found.corrected == 0.25 and found.tokens is not None
    assert found.tokens.disagreement == pytest.approx(0.1)  # means .5 and .6
    assert json.dumps(found.tokens.advantages) == "[0.5, -1.0]"


def test_without_gold_or_noise_clean_scores_are_not_taken_for_true(tmp_path: Path) -> None:
    """A run without either writes what it observed as clean, and error rates of 0."""
    folder = make_run(tmp_path / "run", drop=("trust/",))
    run = read_run(folder)
    assert "reward/clean_mean" not in run.metrics and "reward/false_positive_rate" not in run.metrics
    assert all(sample.clean is None for sample in run.trajectories)
    assert any(problem.startswith("no true score is known") for problem in run.problems)
    config = {**CONFIG, "reward": {"gold": [{"type": "exact_match"}]}}
    run = read_run(make_run(tmp_path / "gold", drop=("trust/",), config=config))
    assert "reward/clean_mean" in run.metrics and run.trajectories[0].clean is not None
