"""``response_format``: does the response look as it should, whatever it says."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from rollout.rewards.answers.reading import ReadingReward
from rollout.rewards.answers.thinking import names_a_mark
from rollout.trajectory import FinishReason, Prompt, Trajectory


class ResponseFormat(ReadingReward):
    """``matched`` if all that is said in a response matches a regular expression, otherwise ``unmatched``.

    A pattern that has a mark of a thought in it, such as ``<think>.*</think>.+``, is for the whole response.
    """

    class Config(ReadingReward.Config):
        """Options of this reward."""

        pattern: str = Field(description="Regular expression for all that is said; '.' matches line breaks too.")
        require_stop: bool = Field(True, description="A response cut at the length limit counts as unmatched.")
        matched: float = Field(1.0, description="Score of a response that matches.")
        unmatched: float = Field(0.0, description="Score of any other response.")

        @field_validator("pattern")
        @classmethod
        def _compiles(cls, pattern: str) -> str:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from error
            return pattern

    config: ResponseFormat.Config

    def read_answer(self, prompt: Prompt, trajectory: Trajectory) -> str | None:
        if names_a_mark(self.config.pattern, self.config.thinking):
            return trajectory.response_text
        return self.said(trajectory)

    def answer_key(self, prompt: Prompt, trajectory: Trajectory) -> str | None:
        return str(self._matches(prompt, trajectory))

    async def __call__(self, prompt: Prompt, trajectory: Trajectory) -> float:
        return self.config.matched if self._matches(prompt, trajectory) else self.config.unmatched

    def _matches(self, prompt: Prompt, trajectory: Trajectory) -> bool:
        if self.config.require_stop and trajectory.finish_reason != FinishReason.STOP:
            return False
        read = self.read_answer(prompt, trajectory)
        return read is not None and re.fullmatch(self.config.pattern, read, re.DOTALL) is not None
