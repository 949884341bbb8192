"""``response_format``: does the response look as it should, whatever it says."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from rollout.rewards.base import Reward
from rollout.trajectory import FinishReason, Prompt, Trajectory


class ResponseFormat(Reward):
    """``matched`` if the whole response matches a regular expression, otherwise ``unmatched``."""

    class Config(Reward.Config):
        """Options of this reward."""

        pattern: str = Field(description="Regular expression for the whole response; '.' matches line breaks too.")
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

    async def __call__(self, prompt: Prompt, trajectory: Trajectory) -> float:
        cut = self.config.require_stop and trajectory.finish_reason is not FinishReason.STOP
        matches = re.fullmatch(self.config.pattern, trajectory.response_text, re.DOTALL) is not None
        return self.config.matched if matches and not cut else self.config.unmatched
