"""``dvpo check`` on tasks with environments: every mistake gets one clear message, and nothing is started."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from transformers import AutoTokenizer

from cluster.check.environment import check_environment
from cluster.config.run_config import load_config
from rollout.component import UserError
from rollout.tasks.chain import Chain
from rollout.trajectory import Prompt

Dvpo = Callable[..., Result]

MODULE = """
from pydantic import Field
from rollout.component import Component, StrictModel
from rollout.environment import Observation, Outcome
from rollout.tasks.chain import Chain


class Game(Component):
    class Config(StrictModel):
        level: int = Field(1, ge=1)

    async def reset(self, prompt, seed):
        return ()

    async def step(self, response):
        return Observation(done=True)

    def outcome(self):
        return Outcome({"won": 1.0})

    async def close(self):
        pass


class Deaf(Game):
    step = None


class Blocking(Game):
    def step(self, response):
        return Observation(done=True)


class Broken(Game):
    def __init__(self, config):
        raise OSError("no board")


class Plain:
    pass
"""
ROLLOUT = "  max_prompt_tokens: 32\n"
TASK = "data:\n  task: {type: chain, num_train: 64, num_eval: 9}\n"
REWARD = "    - {type: exact_match}\n"


@pytest.fixture
def game_file(run_file: Path) -> Path:
    """The small run with a task in files and an environment; the reward is its outcome."""
    (run_file.parent / "games.py").write_text(MODULE)
    rows = "\n".join(json.dumps({"id": str(i), "prompt": f"{i}+1"}) for i in range(9))
    for name in ("train", "test"):
        (run_file.parent / f"{name}.jsonl").write_text(rows)
    task = (
        "data:\n  task:\n    type: dataset\n    train: train.jsonl\n    eval: {test: test.jsonl}\n"
        '    answer_column: null\n    environment: {type: "games:Game", level: 2}\n'
    )
    text = run_file.read_text().replace(TASK, task).replace(REWARD, "    - {type: outcome, metrics: {won: 1}}\n")
    run_file.write_text(text.replace(ROLLOUT, ROLLOUT + "  max_turns: 3\n  max_conversation_tokens: 200\n"))
    return run_file


def test_a_game_that_can_be_played(game_file: Path, dvpo: Dvpo) -> None:
    result = dvpo("check", game_file)
    assert result.exit_code == 0, result.output
    assert "longest conversation (32 prompt, 24 response a turn, 3 turns at most) = 200 tokens" in result.output


@pytest.mark.parametrize(
    ("old", "new", "phrases"),
    [
        ("  max_conversation_tokens: 200\n", "", ["rollout.max_conversation_tokens: task 'dataset' has environments"]),
        ("tokens: 200", "tokens: 40", ["rollout.max_conversation_tokens: 40 leaves no room", "32 + 24 = 56"]),
        ("tokens: 200", "tokens: 300", ["rollout.max_conversation_tokens: 300 tokens", "has 256 positions"]),
        ("games:Game", "games:Gmae", ["data.task.environment.type: module 'games' has no 'Gmae'", "mean 'Game'?"]),
        ("games:Game", "game", ["data.task.environment.type: 'game' is not of the form 'package.module:Class'"]),
        ("games:Game", "games:Plain", ["'games:Plain' is not a subclass of rollout.component.Component"]),
        ("games:Game", "games:Deaf", ["'games:Deaf' is no environment: it has no method 'step'"]),
        ("games:Game", "games:Blocking", ["is no environment: 'step' must be 'async def'"]),
        ("games:Game", "games:Broken", ["data.task.environment: OSError: no board"]),
        ("level: 2", "levle: 2", ["data.task.environment.levle: unknown key; did you mean 'level'?"]),
        ("level: 2", "level: 0", ["data.task.environment.level", "greater than or equal to 1"]),
        ("max_turns: 3", "max_turns: 99", ["rollout.environment_timeout_s: reset and 99 steps may take 3000 s"]),
        (', level: 2', "", []),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(game_file: Path, dvpo: Dvpo, old: str, new: str, phrases: list[str]) -> None:
    text = game_file.read_text()
    assert old in text
    game_file.write_text(text.replace(old, new))
    result = dvpo("check", game_file)
    assert result.exit_code == (2 if phrases else 0), result.output
    assert "Traceback" not in result.output
    for phrase in phrases:
        assert phrase in result.output


def test_an_outcome_needs_an_environment(run_file: Path, dvpo: Dvpo) -> None:
    run_file.write_text(run_file.read_text().replace(REWARD, "    - {type: outcome, metrics: {won: 1}}\n"))
    result = dvpo("check", run_file)
    assert result.exit_code == 2
    assert "reward.functions.0: 'outcome' is the verdict of an environment, and task 'chain' has none" in result.output


def test_room_for_conversations_that_nobody_has(run_file: Path, dvpo: Dvpo) -> None:
    run_file.write_text(run_file.read_text().replace(ROLLOUT, ROLLOUT + "  max_conversation_tokens: 200\n"))
    result = dvpo("check", run_file)
    assert result.exit_code == 0
    assert "rollout.max_conversation_tokens: task 'chain' has no environments" in result.output


def test_a_template_for_a_single_turn_is_refused(game_file: Path, tiny_model: Path) -> None:
    class Talking(Chain):
        def make_environment(self, prompt: Prompt) -> Any:
            from games import Game  # type: ignore[import-not-found]  # written by the fixture

            return Game(Game.Config())

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    config, task = load_config(game_file), Talking(Chain.Config(num_train=8, num_eval=4))
    assert check_environment(config, task, tokenizer) == []
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(UserError, match=r"model\.path: the chat template cannot be used turn by turn"):
        check_environment(config, task, tokenizer)
