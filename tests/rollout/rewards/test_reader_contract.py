"""What a grader derived from a built-in one can rely on, and what becomes of a grader's process."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
from typing import Any

import pytest

from rollout.rewards import math_expression
from rollout.rewards.base import Abstain, Reward, RewardUnavailable
from rollout.rewards.exact_match import ExactMatch
from rollout.rewards.math_expression import MathVerify
from rollout.rewards.math_grader.verdict import Verdict
from rollout.rewards.multiple_choice import MultipleChoice
from rollout.rewards.numeric import Numeric
from rollout.rewards.response_format import ResponseFormat
from rollout.trajectory import Prompt, Trajectory
from tests.rollout.rewards.cases import case

KINDS: list[tuple[type[Any], dict[str, Any], str]] = [
    (ExactMatch, {}, "7"),
    (Numeric, {}, "7"),
    (MultipleChoice, {}, "B"),
    (ResponseFormat, {"pattern": "7"}, "7"),
    (MathVerify, {}, "7"),
]


@pytest.mark.parametrize(("kind", "options", "reference"), KINDS)
async def test_what_is_read_may_depend_on_the_prompt(
    kind: type[Any], options: dict[str, Any], reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind is MathVerify:
        pytest.importorskip("math_verify")
        verdicts = {True: Verdict.EQUAL, False: Verdict.DIFFERENT}
        monkeypatch.setattr(MathVerify, "_verdict", lambda self, answer, expected: verdicts[answer == expected])

    class Own(kind):
        def read_answer(self, prompt: Prompt, trajectory: Trajectory) -> str | None:
            return prompt.reference if "read me" in trajectory.response_text else "other"

    reward = Own(Own.Config(**options))
    right, wrong = case("read me", reference), case("x", reference)
    scores = [value if isinstance(value := reward(*one), float) else await value for one in (right, wrong)]
    assert scores == [1.0, 0.0]
    assert reward.answer_key(*right) != reward.answer_key(*wrong)


def test_the_key_is_the_answer_unless_said_otherwise() -> None:
    class Own(Reward):
        def __call__(self, prompt: Prompt, trajectory: Trajectory) -> float:
            return 1.0

        def read_answer(self, prompt: Prompt, trajectory: Trajectory) -> str | None:
            return f"{prompt.reference} {trajectory.response_text}"

    assert Own(Own.Config()).answer_key(*case("a", "5")) == "5 a"
    assert not inspect.iscoroutinefunction(Own.__call__) and not Own(Own.Config()).is_async


def test_a_long_reference_is_told_in_short() -> None:
    reward = ExactMatch(ExactMatch.Config())
    whole, longer = "a" * 58 + "=b", "a" * 59 + "=b"
    assert f"is {whole!r}, and" in str(reward.unusable(case("", whole)[0]))
    assert f"is '{'a' * 57}...', and" in str(reward.unusable(case("", longer)[0]))


class Pipe:
    """One end of a process that has gone, or that answers."""

    def __init__(self, line: str = "", fails: bool = False) -> None:
        self.line, self.fails, self.closed = line, fails, False

    def write(self, text: str) -> None:
        pass

    def flush(self) -> None:
        if self.fails:
            raise BrokenPipeError

    def readline(self) -> str:
        return self.line

    def close(self) -> None:
        self.closed = True
        if self.fails:
            raise BrokenPipeError


class Gone:
    """A process that ended."""

    def __init__(self, status: int, fails: bool = False, line: str = "") -> None:
        self.status, self.stdin, self.stdout = status, Pipe(fails=fails), Pipe(line)

    def wait(self) -> int:
        return self.status


def test_why_a_process_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("math_verify")
    reward = MathVerify(MathVerify.Config(compare_timeout_s=2.5))
    for status, fails, error, words in (
        (-signal.SIGALRM, False, Abstain, "needs more than 2.5 s"),
        (-signal.SIGALRM, True, Abstain, "needs more than 2.5 s"),
        (signal.SIGALRM, False, RewardUnavailable, "ended with status 14"),
        (-9, True, RewardUnavailable, "ended with status -9"),
    ):
        gone = Gone(status, fails)
        monkeypatch.setattr(math_expression, "_start", lambda gone=gone: gone)
        with pytest.raises(error, match=words):
            reward(*case(r"\boxed{5}", "6"))
        assert gone.stdin.closed and gone.stdout.closed and reward._process is None
    monkeypatch.setattr(math_expression, "_start", lambda: Gone(0, line='{"verdict": "too_large"}'))
    with pytest.raises(Abstain, match="too large to compare"):
        reward(*case(r"\boxed{5}", "6"))


async def test_closing_ends_the_process_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("math_verify")
    reward = MathVerify(MathVerify.Config())
    await reward.close()
    process = Gone(0, line='{"verdict": "equal"}')
    monkeypatch.setattr(math_expression, "_start", lambda: process)
    assert reward(*case(r"\boxed{5}", "6")) == 1.0
    await reward.close()
    assert process.stdin.closed and process.stdout.closed and reward._process is None


def test_the_process_imports_what_the_worker_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []

    def start(command: list[str], env: dict[str, str], **options: Any) -> Gone:
        started.append((command, env))
        return Gone(3, line="ready" if len(started) < 3 else "")

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setenv("HOME_OF_TESTS", "kept")
    monkeypatch.setenv("PYTHONPATH", "/else/where")
    math_expression._start()
    monkeypatch.delenv("PYTHONPATH")
    math_expression._start()
    root = str(math_expression.ROOT)
    assert [env["PYTHONPATH"] for _, env in started] == [f"{root}{os.pathsep}/else/where", root]
    assert (math_expression.ROOT / "rollout" / "rewards").is_dir() and started[0][1]["HOME_OF_TESTS"] == "kept"
    assert started[0][0][1:] == ["-P", "-m", "rollout.rewards.math_grader"]
    with pytest.raises(RewardUnavailable, match="ended with status 3"):
        math_expression._start()
