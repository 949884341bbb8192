"""Code of the user's that raises: the cause first, then where it stands, exit status 2, and nothing is started."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Dvpo = Callable[..., Result]

MODULE = """
import sys
from pydantic import Field, field_validator
from actors.guards.base import Guard
from actors.recording.sinks import FurtherSink
from learner.algorithms.corrections.base import RewardCorrection
from learner.algorithms.critic.terms.base import CriticTerm
from learner.algorithms.without_critic.grpo import GRPO
from rollout.component import Component, UserError
from rollout.noise.base import RewardNoise
from rollout.rewards.base import Reward
from rollout.tasks.base import Task
from rollout.tasks.chain import Chain


class Raises:
    def __init__(self, config):
        super().__init__(config)
        raise OSError("no board\\nat all")


class BrokenReward(Raises, Reward):
    async def __call__(self, prompt, trajectory): ...


class BrokenTask(Raises, Chain): ...


class BrokenNoise(Raises, RewardNoise):
    def __call__(self, reward, prompt, trajectory, rng): ...


class BrokenGuard(Raises, Guard): ...


class BrokenSink(Raises, FurtherSink):
    def write(self, step, metrics): ...


class BrokenAlgorithm(Raises, GRPO): ...


class BrokenCorrection(Raises, RewardCorrection): ...


class BrokenTerm(Raises, CriticTerm): ...


class BrokenGame(Raises, Component):
    async def reset(self, prompt, seed): ...
    async def step(self, response): ...
    def outcome(self): ...
    async def close(self): ...


class Exits(Reward):
    def __init__(self, config):
        sys.exit("no licence")

    async def __call__(self, prompt, trajectory): ...


class Says(BrokenReward):
    def __init__(self, config):
        raise UserError("judge.txt: no such file; write one")


class Validates(BrokenReward):
    class Config(Reward.Config):
        level: int = Field(1, validate_default=True)

        @field_validator("level")
        @classmethod
        def _known(cls, level):
            return {2: 3}[level]


class Unreadable(Chain):
    def examples(self, split):
        raise KeyError("no questions")


class Unnamed(Chain):
    splits = property(lambda self: 1 / 0)


class Remarkable(Chain):
    def remarks(self):
        raise KeyError("nothing to remark")


class Unwilling(Chain):
    def make_environment(self, prompt):
        raise RuntimeError("no games today")
"""
GAME = {
    "type": "dataset",
    "train": "q.jsonl",
    "eval": {"t": "q.jsonl"},
    "environment": {"type": "raising_classes:BrokenGame"},
}


def made(name: str) -> str:
    """How a message ends whose constructor raised."""
    return f"OSError: no board at all (raised while 'raising_classes:{name}' was made, "


CASES: dict[str, tuple[str, Any, str]] = {
    "reward": (
        "reward.functions.0.type",
        "raising_classes:BrokenReward",
        "reward.functions.0: " + made("BrokenReward"),
    ),
    "gold": ("reward.gold", [{"type": "raising_classes:BrokenReward"}], "reward.gold.0: " + made("BrokenReward")),
    "task": ("data.task.type", "raising_classes:BrokenTask", "data.task: " + made("BrokenTask")),
    "noise": ("reward.noise", [{"type": "raising_classes:BrokenNoise"}], "reward.noise.0: " + made("BrokenNoise")),
    "guard": ("guards.further", [{"type": "raising_classes:BrokenGuard"}], "guards.further.0: " + made("BrokenGuard")),
    "sink": ("logging.sinks", [{"type": "raising_classes:BrokenSink"}], "logging.sinks.0: " + made("BrokenSink")),
    "algorithm": ("algorithm", {"type": "raising_classes:BrokenAlgorithm"}, "algorithm: " + made("BrokenAlgorithm")),
    "correction": (
        "algorithm.reward_correction",
        ["raising_classes:BrokenCorrection"],
        "algorithm.reward_correction.0: " + made("BrokenCorrection"),
    ),
    "term": (
        "algorithm",
        {"type": "actor_critic", "terms": ["raising_classes:BrokenTerm"]},
        "algorithm.terms.0: " + made("BrokenTerm"),
    ),
    "environment": ("data.task", GAME, "data.task.environment: " + made("BrokenGame")),
    "exit": (
        "reward.functions.0.type",
        "raising_classes:Exits",
        "reward.functions.0: SystemExit: no licence (raised while 'raising_classes:Exits' was made, ",
    ),
    "its own words": (
        "reward.functions.0.type",
        "raising_classes:Says",
        "reward.functions.0: judge.txt: no such file; write one",
    ),
    "validator": (
        "reward.functions.0.type",
        "raising_classes:Validates",
        "reward.functions.0: KeyError: 1 (raised while 'raising_classes:Validates' was made, ",
    ),
    "questions": (
        "data.task.type",
        "raising_classes:Unreadable",
        "data.task: KeyError: 'no questions' (raised while 'raising_classes:Unreadable' gave its questions of split ",
    ),
    "splits": (
        "data.task.type",
        "raising_classes:Unnamed",
        "data.task: ZeroDivisionError: division by zero (raised while ",
    ),
    "remarks": (
        "data.task.type",
        "raising_classes:Remarkable",
        "data.task: KeyError: 'nothing to remark' (raised by remarks ",
    ),
    "make_environment": (
        "data.task.type",
        "raising_classes:Unwilling",
        "data.task: RuntimeError: no games today (raised by make_environment of 'raising_classes:Unwilling', ",
    ),
    "no signature": (
        "reward.functions.0.type",
        "builtins:getattr",
        "reward.functions.0.type: ValueError: no signature found for builtin <built-in function getattr> (raised ",
    ),
}


@pytest.fixture
def broken(run_file: Path) -> Path:
    """The small run beside a module whose classes raise."""
    (run_file.parent / "raising_classes.py").write_text(MODULE)
    (run_file.parent / "q.jsonl").write_text('{"prompt": "1+2", "answer": "3"}\n')
    return run_file


@pytest.mark.parametrize("command", ["check", "train"])
@pytest.mark.parametrize(("key", "value", "message"), CASES.values(), ids=CASES)
def test_what_was_raised_is_told_with_its_place(
    command: str, key: str, value: Any, message: str, broken: Path, dvpo: Dvpo
) -> None:
    shown = dvpo(command, broken, "--set", f"{key}={json.dumps(value)}")
    assert shown.exit_code == 2, shown.output
    assert "Traceback" not in shown.output
    (line,) = [line for line in shown.output.splitlines() if line.startswith("error: ")]
    place, _, told = line.partition(message)
    assert place.startswith("error: "), line
    if message.endswith("was made, "):
        assert re.fullmatch(r"\S*/raising_classes\.py:\d+\) \[code-raised\]", told), line
        if "OSError" in message:
            assert told.endswith(f":{MODULE[: MODULE.index('raise OSError')].count(chr(10)) + 1}) [code-raised]")
    assert not (broken.parent / "runs").exists()
