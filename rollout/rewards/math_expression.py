"""``math_verify``: LaTeX or plain expressions are compared as mathematics; the package math-verify parses them."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

from pydantic import Field

from rollout.component.mistakes import PackageMissing
from rollout.rewards.answers.claims import boxed
from rollout.rewards.answers.expressions import read_expression
from rollout.rewards.answers.reading import ReadingReward
from rollout.rewards.base import Abstain, RewardUnavailable
from rollout.rewards.exact_match import required_reference
from rollout.rewards.math_grader.notation import clean
from rollout.rewards.math_grader.verdict import Verdict
from rollout.trajectory import FinishReason, Prompt, Trajectory

ROOT = Path(__file__).resolve().parents[2]
"""Where the packages are imported from; the process gets the same ones."""
_ONE_CHARACTER = re.compile(r"\{(\w)\}")
"""Braces that change nothing: ``\\frac{1}{2}`` is ``\\frac12``."""
_WORDS = re.compile(r"[^\W\d_]{2,}(?:[' -][^\W\d_]+)*")


class MathVerify(ReadingReward):
    """``correct`` if the response's final answer equals the reference as mathematics: ``\\frac12`` equals ``0.5``.

    :func:`rollout.rewards.answers.expressions.read_expression` finds the answer. The comparison runs in a process of
    its own, so that a response such as ``9^{9^{9^9}}`` cannot hang a worker: one that needs too long is abstained from.

    Raises:
        UserError: the package math-verify is not installed.
    """

    deterministic = True

    class Config(ReadingReward.Config):
        """Options of this reward."""

        correct: float = Field(1.0, description="Score of a right answer.")
        incorrect: float = Field(0.0, description="Score of a wrong answer.")
        no_answer: float = Field(0.0, description="Score of a response without an expression.")
        compare_timeout_s: float = Field(3.0, gt=0.0, description="Longest time for one comparison, in seconds.")

    config: MathVerify.Config

    def __init__(self, config: MathVerify.Config) -> None:
        super().__init__(config)
        if importlib.util.find_spec("math_verify") is None:
            raise PackageMissing(
                "the reward 'math_verify' needs the package math-verify: pip install 'math-verify>=0.9'"
            )
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, prompt: Prompt, trajectory: Trajectory) -> float:
        """The score.

        Raises:
            Abstain: the comparison needs too much time or memory.
            ValueError: the reference is missing or no expression.
        """
        expected = _expected(prompt)
        answer = self.read_answer(prompt, trajectory)
        if answer is None or not answer.strip():
            return self.config.no_answer
        verdict = self._verdict(answer, expected)
        if verdict is Verdict.TOO_LARGE:
            raise Abstain("the expression is too large to compare")
        return self.config.correct if verdict is Verdict.EQUAL else self.config.incorrect

    def unusable(self, prompt: Prompt) -> str | None:
        """See :meth:`Reward.unusable`. Nothing is parsed, which may take long."""
        _expected(prompt)
        return None

    def read_answer(self, prompt: Prompt, trajectory: Trajectory) -> str | None:
        said = self.said(trajectory)
        if said is None:
            return None
        is_whole = trajectory.finish_reason != FinishReason.LENGTH
        wants_words = prompt.reference is not None and _is_words(_expression_in(prompt.reference))
        return read_expression(said, is_whole, wants_words)

    def answer_key(self, prompt: Prompt, trajectory: Trajectory) -> str | None:
        """The expression with its notation made one; equal values in other forms, such as 1/2 and 0.5, stay apart."""
        expression = clean(self.read_answer(prompt, trajectory) or "")
        return _ONE_CHARACTER.sub(r"\1", expression)

    def _verdict(self, answer: str, reference: str) -> Verdict:
        """Ask the process; it is started if there is none."""
        job = {"answer": answer, "reference": reference, "timeout_s": self.config.compare_timeout_s}
        with self._lock:
            if self._process is None:
                self._process = _start()
            stdin, stdout = self._process.stdin, self._process.stdout
            assert stdin is not None and stdout is not None  # both are pipes
            try:
                stdin.write(json.dumps(job) + "\n")
                stdin.flush()
                line = stdout.readline()
            except OSError:
                line = ""
            if line:
                return Verdict(json.loads(line)["verdict"])
            status = _end(self._process)
            self._process = None
        if status == -signal.SIGALRM:
            raise Abstain(f"the comparison needs more than {self.config.compare_timeout_s:g} s")
        raise RewardUnavailable(f"the process that compares expressions ended with status {status}")

    async def close(self) -> None:
        """End the process."""
        if self._process is not None:
            _end(self._process)
            self._process = None


def _expected(prompt: Prompt) -> str:
    """The expression that the reference has, as it is written.

    Raises:
        ValueError: the reference is missing or no expression.
    """
    reference = required_reference(prompt)
    expected = _expression_in(reference)
    if not clean(expected):
        raise ValueError(f"the reference of prompt {prompt.prompt_id!r} is not an expression: {reference!r}")
    return expected


def _expression_in(reference: str) -> str:
    """The answer of a reference that may be a worked solution: what is boxed, or follows ``####``; else all of it."""
    boxes = boxed(reference)
    if boxes:
        return boxes[-1].content
    return reference.rpartition("####")[2]


def _is_words(reference: str) -> bool:
    """Whether an answer is a word, a few words or a sequence of letters."""
    bare = re.sub(r"\\(?:text|textbf|mathrm|mbox)\b|[${}]", "", reference).strip()
    return _WORDS.fullmatch(bare) is not None


def _start() -> subprocess.Popen[str]:
    """The process, ready to answer."""
    command = [sys.executable, "-P", "-m", "rollout.rewards.math_grader"]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    if not process.stdout.readline():
        raise RewardUnavailable(f"the process that compares expressions ended with status {_end(process)}")
    return process


def _end(process: subprocess.Popen[str]) -> int:
    """Close the pipes and wait; returns the exit status."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # what was not written can no longer be
                continue
    return process.wait()
