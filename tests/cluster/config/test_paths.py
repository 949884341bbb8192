"""Every path that a user writes is read by one rule, whichever option or argument it stands in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from cluster.cli import reward_model, run, tools
from cluster.cli.paths import ExpandedPath
from cluster.config.components import build_components
from cluster.config.run_config import load_config
from cluster.reward_model.config import RewardModelConfig
from rollout.component import PathText, expand_path
from rollout.rewards.model import ModelReward
from tests.test_option_models import option_models

Dvpo = Callable[..., Result]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("PLACE", str(folder / "place"))
    return folder


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("~", "HOME"),
        ("~/x", "HOME/x"),
        ("$PLACE/x", "HOME/place/x"),
        ("${PLACE}s/*.jsonl", "HOME/places/*.jsonl"),
        ("a/$PLACE", "a/HOME/place"),
        ("a/~/b", "a/~/b"),
        ("./~", "./~"),
        ("owner/name", "owner/name"),
        ("costs 5$", "costs 5$"),
    ],
)
def test_the_rule(text: str, path: str, home: Path) -> None:
    assert expand_path(text) == path.replace("HOME", str(home))


@pytest.mark.parametrize("text", ["~", "$PLACE"])
def test_every_option_that_is_a_path(text: str, run_file: Path, home: Path) -> None:
    folder = expand_path(text)
    Path(folder).mkdir(exist_ok=True)
    Path(folder, "q.jsonl").write_text('{"prompt": "1+1", "answer": "2"}\n')
    task = f"{{type: dataset, train: '{text}/q.jsonl', eval: {{a: ['{text}/*.jsonl']}}, on_bad_row: reject, "
    config = load_config(
        run_file,
        [
            f"output_dir={text}/runs",
            f"model.path={text}/model",
            f"model.critic_path={text}/critic",
            f"data.task={task} rejects: '{text}/bad'}}",
        ],
    )
    assert config.run_dir == Path(folder, "runs", "small")
    assert (config.model.path, config.model.critic_path) == (f"{folder}/model", f"{folder}/critic")
    parts = build_components(config)
    assert parts.task.config.train == (f"{folder}/q.jsonl",)
    assert parts.task.config.eval == {"a": (f"{folder}/*.jsonl",)}
    assert parts.task.config.rejects == f"{folder}/bad"
    assert ModelReward.Config(path=f"{text}/rm").path == f"{folder}/rm"
    trained = RewardModelConfig(model=f"{text}/m", output=f"{text}/o", train=(f"{text}/t",), eval=(f"{text}/e",))
    assert (trained.model, trained.output) == (f"{folder}/m", f"{folder}/o")
    assert (*trained.train, *trained.eval) == (f"{folder}/t", f"{folder}/e")


def test_no_option_is_described_as_a_path_and_is_none() -> None:
    """A later option for a file or folder comes with the rule."""
    rule = PathText.__metadata__[0]  # type: ignore[attr-defined]
    found = 0
    for model in option_models():
        for name, field in model.model_fields.items():
            said = (field.description or "").casefold()
            if "str" not in str(field.annotation) or not said.startswith(("folder", "model folder", "training files")):
                continue
            found += 1
            assert rule in field.metadata or rule.func.__name__ in str(field.annotation), f"{model}.{name}"
    assert found >= 6


def test_every_argument_that_is_a_path() -> None:
    commands = [run.train, run.check, run.evaluate, run.audit, tools.schema, tools.warmstart, tools.ledger]
    commands += reward_model.reward_model.commands.values()
    names = {"config", "checkpoint", "output", "gold", "resume", "run"}
    parameters = [parameter for command in commands for parameter in command.params if parameter.name in names]
    assert len(parameters) >= 13
    assert all(isinstance(parameter.type, ExpandedPath) for parameter in parameters)


def test_arguments_are_expanded(dvpo: Dvpo, run_file: Path, home: Path) -> None:
    shutil.copy(run_file, home / "small.yaml")
    assert dvpo("check", "~/small.yaml", "--set", "output_dir=~/runs").exit_code == 0
    assert dvpo("schema", "--output=$HOME/schema.json").exit_code == 0
    assert (home / "schema.json").is_file()
    assert not (run_file.parent / "~").exists()
    refused = dvpo("schema", "--output=$NOT_SET_ANYWHERE/x")
    assert refused.exit_code == 2
    assert "error: --output: the environment variable 'NOT_SET_ANYWHERE' is not set" in refused.output


def test_a_tilde_makes_no_folder_of_that_name(dvpo: Dvpo, run_file: Path, home: Path) -> None:
    shown = dvpo("check", run_file, "--set", "output_dir=~/runs")
    assert shown.exit_code == 0, shown.output
    assert f"in {home}/runs/small" in shown.output
