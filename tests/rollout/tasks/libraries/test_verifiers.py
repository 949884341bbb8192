"""Tasksets of the real verifiers: a module of a user's with one question each, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rollout.component import ComponentSpec, UserError, build
from rollout.rewards.function import build_reward
from rollout.tasks import TASKS
from rollout.tasks.base import Task
from rollout.trajectory import FinishReason, Prompt, Trajectory

MODULE = """
import re

import verifiers.v1 as vf

__all__ = ["Sums"]


class Data(vf.TaskData):
    answer: int


class Sum(vf.Task[Data]):
    @vf.reward(weight=1.0)
    async def right(self, trace: vf.Trace) -> float:
        return float(re.findall(r"-?\\\\d+", trace.last_reply)[-1:] == [str(self.data.answer)])

    @vf.reward(weight=0.25)
    async def brief(self, trace: vf.Trace{runtime}) -> float:
        return float(len(trace.last_reply) < 10)


class Config(vf.TasksetConfig):
    num_tasks: int = 6


class Sums(vf.Taskset[Sum, Config]):
    def load(self):
        for n in range(self.config.num_tasks):
            yield Sum(Data(prompt={prompt}, system_prompt="Be brief.", answer=2 * n))
"""


@pytest.fixture(autouse=True)
def _installed() -> None:
    pytest.importorskip("verifiers.v1", reason="the package verifiers is not installed")


def write(folder: Path, name: str, prompt: str = 'f"What is {n} + {n}?"', runtime: str = "") -> None:
    text = MODULE.replace("{runtime}", runtime).replace("{prompt}", prompt).replace("\\\\", "\\")
    (folder / f"{name}.py").write_text(text)


def task(train: dict[str, Any], test: dict[str, Any]) -> Any:
    return build(ComponentSpec(type="verifiers", train=train, eval={"test": test}), TASKS, Task, "data.task")


async def test_questions_and_the_weighted_sum_of_their_rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "sums_of_a_test")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = task({"taskset": "sums_of_a_test", "skip": 2}, {"taskset": "sums_of_a_test", "size": 2})
    train, test = found.examples("train"), found.examples("test")
    assert [e.messages[1]["content"] for e in train] == [f"What is {n} + {n}?" for n in (2, 3, 4, 5)]
    assert [e.messages[0]["content"] for e in test] == ["Be brief."] * 2
    more = task({"taskset": "sums_of_a_test", "options": {"num_tasks": 9}}, {"taskset": "sums_of_a_test", "size": 1})
    assert len(more.examples("train")) == 9

    reward: Any = build_reward(ComponentSpec(type="verifiers"), "reward.functions.0")
    prompt = Prompt(
        prompt_id=train[1].example_id,
        messages=train[1].messages,
        token_ids=(),
        reference=None,
        task="verifiers",
        extra=json.loads(json.dumps(train[1].extra)),
    )
    for response, expected in (("6", 1.25), ("It is, as I believe, 6", 1.0), ("7", 0.25), ("No more than seven", 0.0)):
        trajectory = Trajectory(
            prompt_id=prompt.prompt_id,
            sample_index=0,
            token_ids=(1,),
            action_mask=(True,),
            rollout_logprobs=(0.0,),
            finish_reason=FinishReason.STOP,
            policy_version_min=0,
            policy_version_max=0,
            response_text=response,
        )
        assert await reward(prompt, trajectory) == expected


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("needs_a_box", {"runtime": ", runtime"}, r"task 0: its reward 'brief' needs a runtime \(a container\)"),
        ("opened_by_the_other", {"prompt": "None"}, "task 0: has no prompt; the other side opens"),
        ("no_such_module_anywhere", None, "ModuleNotFoundError"),
    ],
)
def test_what_one_response_cannot_serve_is_refused(
    name: str, changes: dict[str, str] | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if changes is not None:
        write(tmp_path, name, **changes)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=rf"taskset '{name}' of verifiers: .*{words}"):
        task({"taskset": name}, {"taskset": name}).examples("train")


def test_an_unknown_option_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "sums_with_an_option")
    monkeypatch.syspath_prepend(str(tmp_path))
    wrong = {"taskset": "sums_with_an_option", "options": {"num_task": 3}}
    with pytest.raises(UserError, match=r"taskset 'sums_with_an_option' of verifiers: ValidationError: .*num_task"):
        task(wrong, wrong).examples("train")
