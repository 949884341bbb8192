"""A study's file: what it expands to, and what is said of a mistake in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from cluster.cli import main
from cluster.study.cells import plan_cells
from cluster.study.config import Cell, load_study

STUDY: dict[str, Any] = {
    "base": "base.yaml",
    "output": "out",
    "overrides": {"training.num_steps": 6, "training.max_staleness": 0},
    "axes": {
        "algorithm": {
            "dvpo": {},
            "ppo": {"algorithm": "ppo"},
            "hot": {"algorithm.preset": "ppo", "learner.policy_lr": 0.01},
        },
        "task": {"short": {"data.task.num_train": 32}},
        "noise": {"none": {"reward.noise": []}, "flips": {"reward.noise.0.p": 0.4}},
    },
    "seeds": {"first": 5, "count": 2},
}
BASE: dict[str, Any] = {
    "seed": 3,
    "data": {"task": {"type": "chain"}},
    "reward": {"noise": [{"type": "symmetric_flip", "p": 0.1}]},
    "training": {"num_steps": 50},
    "rollout": {"max_prompt_tokens": 48, "sampling": {"max_response_tokens": 12}},
    "cluster": {"num_cpus": 4},
}


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**BASE, "model": {"path": str(tiny_model)}}))
    return tmp_path


def write(folder: Path, **keys: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **keys}, sort_keys=False))
    return path


def message(path: Path, *options: str) -> str:
    """What `dvpo study` says of a mistake."""
    result = CliRunner().invoke(main, ["study", path.name, *options])
    assert result.exit_code == 2, result.output
    return result.output


def test_cells_are_the_grid_with_seeds_outermost(folder: Path) -> None:
    study = load_study(write(folder))
    cells = study.cells()
    assert len(cells) == 3 * 1 * 2 * 2
    assert cells[0] == Cell(algorithm="dvpo", task="short", noise="none", seed=5)
    assert [cell.seed for cell in cells] == [5] * 6 + [6] * 6
    assert cells[-1].name == "short/flips/hot/seed-6"
    assert study.baseline == "dvpo"


def test_a_cell_changes_the_base_in_the_order_of_the_file(folder: Path) -> None:
    path = write(folder)
    planned = {one.cell.name: one for one in plan_cells(load_study(path), path)}
    config = planned["short/flips/hot/seed-6"].config
    assert config.seed == 6
    assert config.algorithm.name == "ppo"
    assert config.learner.policy_lr == 0.01
    assert config.training.num_steps == 6
    assert config.data.task.options == {"num_train": 32}
    assert config.reward.noise[0].options == {"p": 0.4}
    assert str(config.run_dir) == "out/runs/short/flips/hot/seed-6"
    assert not config.logging.tensorboard
    assert planned["short/none/dvpo/seed-5"].config.reward.noise == ()
    assert planned["short/none/dvpo/seed-5"].config.algorithm.name == "dvpo"


def test_the_fingerprint_is_of_what_may_move_a_number(folder: Path) -> None:
    path = write(folder)
    before = [one.fingerprint for one in plan_cells(load_study(path), path)]
    assert len(set(before)) == len(before)
    path = write(folder, output="elsewhere", overrides={**STUDY["overrides"], "logging.tensorboard": True})
    assert [one.fingerprint for one in plan_cells(load_study(path), path)] == before
    path = write(folder, overrides={**STUDY["overrides"], "training.keep_checkpoints": 3})  # the default, spelled out
    assert [one.fingerprint for one in plan_cells(load_study(path), path)] == before
    path = write(folder, overrides={**STUDY["overrides"], "learner.critic_lr": 0.5})
    assert not set(before) & {one.fingerprint for one in plan_cells(load_study(path), path)}


def test_cells_with_another_model_or_rollout_need_another_engine(folder: Path) -> None:
    task = {"short": {}, "long": {"rollout.max_prompt_tokens": 64}}
    path = write(folder, axes={**STUDY["axes"], "task": task})
    planned = plan_cells(load_study(path), path)
    assert len({one.engine for one in planned}) == 2
    assert len({one.engine for one in planned if one.cell.task == "long"}) == 1


def test_a_task_and_a_noise_may_be_left_out(folder: Path) -> None:
    path = write(folder, axes={"algorithm": {"ppo": {"algorithm": "ppo"}}})
    assert [cell.name for cell in load_study(path).cells()] == ["base/base/ppo/seed-5", "base/base/ppo/seed-6"]


def test_plan_shows_every_cell(folder: Path) -> None:
    write(folder)
    result = CliRunner().invoke(main, ["study", "study.yaml", "--plan"])
    assert result.exit_code == 0, result.output
    assert "short/flips/hot/seed-6: to do" in result.output
    assert "3 algorithms x 1 tasks x 2 noises x 2 seeds: 12 cells, 12 to do; 1 engine settings" in result.output
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("keys", "phrases"),
    [
        ({"seeds": [1, 1]}, ["study.yaml", "one is given twice"]),
        ({"seeds": {"count": 0}}, ["study.yaml:", "seeds: must be a list of seeds, or {first: 0, count: 10}"]),
        ({"repeats": 3}, ["study.yaml:", "repeats: unknown key"]),
        ({"axes": {"algorithm": {}}}, ["axes.algorithm", "at least one entry"]),
        ({"axes": {"algorithm": {"a/b": {}}}}, ["axes.algorithm", "'a/b' names a folder"]),
        ({"axes": {"algorithm": {"a": {"algorithm..x": 1}}}}, ["'algorithm..x' is no dotted key"]),
        ({"overrides": {"seed": 1}}, ["overrides", "is an axis of its own"]),
        ({"overrides": {"training.steps": 1}}, ["study.yaml: overrides", "training.steps: unknown key", "num_steps"]),
        (
            {"axes": {"algorithm": {"ppo": {"learner.policy_lr": "fast"}}}},
            ["study.yaml: axes.algorithm.ppo", "learner.policy_lr", "'fast'"],
        ),
        ({"axes": {"algorithm": {"ppo": {"algorithm": "ppoo"}}}}, ["ppo", "did you mean 'ppo'"]),
        (
            {"axes": {"algorithm": {"ppo": {"algorithm": {"preset": "ppo", "critic": {"num_quantiles": 9}}}}}},
            ["cell base/base/ppo/seed-5", "algorithm.critic.num_quantiles", "must be 1"],
        ),
        ({"base": "missing.yaml"}, ["missing.yaml: no such file"]),
        ({"report": {"baseline": "grpo"}}, ["report.baseline: 'grpo' is none of dvpo, ppo, hot"]),
        ({"report": {"clean": "clean"}}, ["report.clean: 'clean' is none of none, flips"]),
        ({"overrides": {"learner.num_workers": 2}}, ["learner.num_workers: 2 ranks", "processes: run"]),
        ({"overrides": {"cluster.address": "auto", "cluster.num_cpus": None}}, ["cluster.address", "processes: run"]),
        ({"metrics": ["eval/tset/accuracy"]}, ["metrics", "'eval/tset/accuracy'", "splits", "test"]),
    ],
)
def test_mistakes(keys: dict[str, Any], phrases: list[str], folder: Path) -> None:
    said = message(write(folder, **keys), "--plan")
    assert all(phrase in said for phrase in phrases), said


def test_results_of_another_study_are_not_mixed_in(folder: Path) -> None:
    path = write(folder)
    cell = load_study(path).cells()[0].model_dump_json()
    (folder / "out").mkdir()
    line = f'{{"cell": {cell}, "fingerprint": "00", "wall_s": 1.0, "curve": []}}\n'
    (folder / "out" / "cells.jsonl").write_text(line)
    assert "cell short/none/dvpo/seed-5 is of another configuration" in message(path)
    assert (folder / "out" / "cells.jsonl").read_text() == line


def test_a_line_that_is_no_result(folder: Path) -> None:
    path = write(folder)
    (folder / "out").mkdir()
    (folder / "out" / "cells.jsonl").write_text("{}\n")
    assert "cells.jsonl:1: is not the result of a cell" in message(path)
