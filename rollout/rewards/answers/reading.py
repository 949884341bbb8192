"""The base of rewards that read the response: they share the rule for what is thought and what is said."""

from __future__ import annotations

from pydantic import Field

from rollout.rewards.answers.thinking import ThinkingConfig, spoken
from rollout.rewards.base import Reward
from rollout.trajectory import Trajectory


class ReadingReward(Reward):
    """Reads what is said in a response, and never what is thought."""

    class Config(Reward.Config):
        """Options of these rewards."""

        thinking: ThinkingConfig = Field(
            default_factory=ThinkingConfig, description="How thoughts are told from what is said; only that counts."
        )

    config: ReadingReward.Config

    def said(self, trajectory: Trajectory) -> str | None:
        """The response without its thoughts, or None if its last thought was cut."""
        return spoken(trajectory.response_text, self.config.thinking)
