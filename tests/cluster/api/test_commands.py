"""Training and measuring from Python: what is handed on, and what is refused before anything starts."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.loop.evaluation import SplitAnswers
from cluster.api import UserError, compare, evaluate, train
from cluster.check.check import CheckReport
from cluster.config.run_config import RunConfig
from cluster.display.progress import RunSummary
from tests.cluster.report.made_runs import make_run


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RunConfig, str | None]]:
    """Stands for the run itself; it leaves a folder."""
    calls: list[tuple[RunConfig, str | None]] = []

    def run_training(config: RunConfig, resume: str | None = None, **_: object) -> RunSummary:
        calls.append((config, resume))
        make_run(config.run_dir, with_samples=False)
        return RunSummary()

    monkeypatch.setattr("cluster.run.start.run_training", run_training)
    return calls


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is found wrong, and no time is spent on it."""
    monkeypatch.setattr("cluster.check.check.check_run", lambda config, resume, overwrite: CheckReport())


@pytest.mark.usefixtures("unchecked")
def test_a_file_and_a_mapping_are_the_same_configuration(run_file: Path, trained: list[Any]) -> None:
    changes = {"training.num_steps": 5, "algorithm": "grpo", "training.samples_per_prompt": 4}
    run = train(run_file, changes)
    assert run.folder == Path("runs/small") and run.metrics.num_rows > 0
    data = yaml.safe_load(run_file.read_text())
    train(data, changes, overwrite=True)
    (first, _), (second, _) = trained
    assert first == second
    assert (first.training.num_steps, first.algorithm.preset) == (5, "grpo")
    assert data == yaml.safe_load(run_file.read_text())  # what was given is as it was


def test_overwrite_deletes_and_a_taken_folder_is_refused(run_file: Path, trained: list[Any]) -> None:
    make_run(Path("runs/small"), with_samples=False)
    (Path("runs/small") / "old").touch()
    with pytest.raises(UserError, match="already holds a run"):
        train(run_file)
    train(run_file, resume="auto")
    assert trained[-1][1] == "auto" and Path("runs/small/old").exists()
    train(run_file, overwrite=True)
    assert not Path("runs/small/old").exists() and len(trained) == 2


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"training.num_stepz": 5}, {}, r"changes: training\.num_stepz: unknown key"),
        ({"training.num_steps": "many"}, {}, r"changes: training\.num_steps: must be"),
        ({"data.task.type": "chian"}, {}, r"changes: data\.task\.type: unknown name .*'chain'"),
        ({}, {"resume": "auto", "overwrite": True}, "overwrite: deletes what resume would go on from"),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    changes: dict[str, Any], options: dict[str, Any], message: str, run_file: Path, trained: list[Any]
) -> None:
    with pytest.raises(UserError, match=message):
        train(run_file, changes, **options)
    assert trained == []


def test_a_mapping_needs_a_name(run_file: Path) -> None:
    with pytest.raises(UserError, match="config: 'name' is missing"):
        train({"model": {"path": "m"}})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_run_that_was_stopped_is_no_finished_one(
    number: int, raised: type[BaseException], run_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.run.start.run_training", lambda config, resume, **_: RunSummary(stopped_by=number))
    with pytest.raises(raised):
        train(run_file)


@pytest.mark.usefixtures("unchecked")
def test_measuring_takes_the_configuration_of_the_run(
    run_file: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def answers_of(config: RunConfig, model: Path, splits: tuple[str, ...], _: object) -> dict[str, SplitAnswers]:
        calls.append((config.name, config.model.path, model, splits))
        return {split: SplitAnswers([]) for split in splits}

    monkeypatch.setattr("cluster.run.evaluate.answers_of", answers_of)
    run = Path("runs/small")
    policy = run / "checkpoints" / "step-4" / "policy"
    policy.parent.mkdir(parents=True)
    policy.symlink_to(tiny_model)
    with pytest.raises(UserError, match="lies in no run's folder"):
        evaluate(tiny_model)
    (run / "config.yaml").write_text(run_file.read_text())
    found = evaluate(policy.parent, run_file, splits=["test"])
    assert calls[0] == ("small", str(policy), policy, ("test",))
    assert set(found.metrics) == {"test"} and found.answers.num_rows == 0
    with pytest.raises(UserError, match="splits: unknown split 'tset'"):
        evaluate(policy.parent, run_file, splits=["tset"])
    with pytest.raises(UserError, match="is a run without a complete checkpoint"):
        evaluate(run)


def test_comparing_needs_two(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", with_samples=False)
    with pytest.raises(UserError, match="runs: at least two"):
        compare(folder)
