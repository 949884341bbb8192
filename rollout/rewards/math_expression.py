"""``math_verify``: LaTeX or plain expressions are compared as mathematics, by the package math-verify."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

from pydantic import Field

from rollout.component import UserError
from rollout.rewards import math_grader
from rollout.rewards.base import Abstain, Reward, RewardUnavailable
from rollout.rewards.exact_match import required_reference
from rollout.rewards.math_grader import Verdict
from rollout.trajectory import Prompt, Trajectory


class MathVerify(Reward):
    """``correct`` if the response's last expression equals the reference as mathematics: ``\\frac12`` equals ``0.5``.

    Answers in ``\\boxed{}`` are preferred. The comparison runs in a process of its own, so that a response such as
    ``9^{9^{9^9}}`` cannot hang a worker: one that needs too long is abstained from.

    Raises:
        UserError: the package math-verify is not installed.
    """

    deterministic = True

    class Config(Reward.Config):
        """Options of this reward."""

        correct: float = Field(1.0, description="Score of a right answer.")
        incorrect: float = Field(0.0, description="Score of a wrong answer.")
        no_answer: float = Field(0.0, description="Score of a response without an expression.")
        compare_timeout_s: float = Field(3.0, gt=0.0, description="Longest time for one comparison, in seconds.")

    config: MathVerify.Config

    def __init__(self, config: MathVerify.Config) -> None:
        super().__init__(config)
        if importlib.util.find_spec("math_verify") is None:
            raise UserError("the reward 'math_verify' needs the package math-verify: pip install 'math-verify>=0.9'")
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, prompt: Prompt, trajectory: Trajectory) -> float:
        """The score.

        Raises:
            Abstain: the comparison needs too much time or memory.
            ValueError: the reference is missing or no expression.
        """
        reference = required_reference(prompt)
        verdict = self._verdict(trajectory.response_text, reference)
        if verdict is Verdict.BAD_REFERENCE:
            raise ValueError(f"the reference of prompt {prompt.prompt_id!r} is not an expression: {reference!r}")
        if verdict is Verdict.TOO_LARGE:
            raise Abstain("the expression is too large to compare")
        scores = {Verdict.EQUAL: self.config.correct, Verdict.NO_ANSWER: self.config.no_answer}
        return scores.get(verdict, self.config.incorrect)

    def _verdict(self, response: str, reference: str) -> Verdict:
        """Ask the process; it is started if there is none."""
        job = {"response": response, "reference": reference, "timeout_s": self.config.compare_timeout_s}
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


def _start() -> subprocess.Popen[str]:
    """The process, ready to answer."""
    command = [sys.executable, "-P", str(Path(math_grader.__file__))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
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
