"""``dvpo init``: each kind of project is whole, passes the check, and has a reward that agrees with its labels."""

from __future__ import annotations

import importlib
import json
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import Result

from cluster.config.starter.starter import KINDS, MODEL, write_project
from rollout.trajectory import Prompt

Dvpo = Callable[..., Result]
SMALL = ("rollout.max_prompt_tokens=120", "rollout.sampling.max_response_tokens=16")
"""The tiny model has 256 places."""
BONUS = {"math": "{type: 'my_reward:shows_work', weight: 0.1}", "qa": "{type: 'my_reward:brief', max_words: 9}"}


@pytest.fixture(autouse=True)
def own_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every project has modules of the same names."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("my_reward", "my_dialogue"):
        sys.modules.pop(name, None)


def small(kind: str) -> list[str]:
    longer = ["rollout.max_conversation_tokens=240"] if kind == "dialogue" else []
    return [f"--set={setting}" for setting in (*SMALL, *longer)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_project_is_whole(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "My project!"
    written = write_project(folder, kind)
    assert {path.relative_to(folder) for path in folder.rglob("*.*")} == {path.relative_to(folder) for path in written}
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (config["name"], config["model"]["path"]) == ("My-project-", MODEL)
    readme = (folder / "README.md").read_text()
    for path in written:
        assert "{{" not in path.read_text()
        assert path.name == "README.md" or f"`{path.relative_to(folder)}`" in readme
    train, test = (
        [json.loads(line)["prompt"] + line for line in (folder / "data" / name).read_text().splitlines()]
        for name in ("train.jsonl", "test.jsonl")
    )
    assert len(train) >= 15 and not set(train) & set(test)


def test_the_sums_of_the_math_sample_are_right(tmp_path: Path) -> None:
    rules = {
        "boxes hold": lambda a, b, c: a * b + c,
        "euros more": lambda a, b, c: a + b - c,
        "A train": lambda a, b, c: a * b + c,
        "rows of": lambda a, b, c: a * b - c,
        "What is": lambda a, b, c: a + b * c,
    }
    write_project(tmp_path / "p", "math")
    for file in (tmp_path / "p" / "data").iterdir():
        for row in map(json.loads, file.read_text().splitlines()):
            numbers = [int(number) for number in re.findall(r"\d+", row["prompt"])]
            (rule,) = (rule for words, rule in rules.items() if words in row["prompt"])
            assert row["answer"] == rule(*numbers) >= 0, row


async def test_the_customer_says_what_it_wants_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(tmp_path / "p", "dialogue")
    monkeypatch.syspath_prepend(str(tmp_path / "p"))
    module = importlib.import_module("my_dialogue")
    extra = {"people": 4, "time": "7 pm"}
    prompt = Prompt(prompt_id="c", messages=(), token_ids=(1,), reference=None, task="t", extra=extra)

    async def talk(*responses: str) -> tuple[list[str], dict[str, float]]:
        customer = module.Customer(module.Customer.Config())
        await customer.reset(prompt, random.Random(0).randrange(9))
        said = [await customer.step(response) for response in responses]
        assert [one.done for one in said[:-1]] == [False] * (len(said) - 1) and said[-1].done
        return [one.messages[0]["content"] for one in said], customer.outcome().metrics

    answers, metrics = await talk("How many people?", "And when?", "BOOK 4, 7 pm")
    assert answers == ["we are 4", "at 7 pm", "thank you"] and metrics == {"booked": 1.0, "asked": 1.0, "turns": 3.0}
    assert (await talk("book 5, 7 pm"))[1] == {"booked": 0.0, "asked": 0.0, "turns": 1.0}
    assert (await talk("hm", "hm", "hm", "hm"))[0] == ["sorry?"] * 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_project_checks_and_its_reward_says_what_the_labels_say(
    kind: str, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, dvpo: Dvpo
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    made = dvpo("init", tmp_path / "p", "--kind", kind, "--model", tiny_model)
    assert made.exit_code == 0 and f"next: cd {tmp_path / 'p'} && dvpo check config.yaml" in made.output
    monkeypatch.chdir(tmp_path / "p")
    monkeypatch.syspath_prepend(str(tmp_path / "p"))
    bonus = [f"--set=reward.functions.1={BONUS[kind]}"] if kind in BONUS else []
    found = dvpo("check", "config.yaml", *small(kind), *bonus)
    assert found.exit_code == 0, found.output
    assert found.output.splitlines()[-1] == "ok" and "warning" not in found.output
    tested = dvpo("reward", "test", "config.yaml", "labels.jsonl", "--max-disagreements", "0")
    assert tested.exit_code == 0, tested.output


def test_nothing_of_the_users_is_replaced(tmp_path: Path, dvpo: Dvpo) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "config.yaml").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name, reason in (("full", "is not empty"), ("file", "is a file")):
        found = dvpo("init", tmp_path / name)
        assert found.exit_code == 2 and f"{name} {reason}; name a new folder" in found.output
    assert (tmp_path / "full" / "config.yaml").read_text() == "mine"
    assert dvpo("init", tmp_path / "new", "--kind", "maths").exit_code == 2
    assert dvpo("init", tmp_path / "file" / "below").exit_code == 2
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("model", ["my models/a: b", "123", "null", "owner/name-1.5B", "#x"])
def test_any_name_of_a_model_is_read_back(model: str, tmp_path: Path) -> None:
    write_project(tmp_path / "2026", "own", model)
    config = yaml.safe_load((tmp_path / "2026" / "config.yaml").read_text())
    assert (config["model"]["path"], config["name"]) == (model, "2026")
