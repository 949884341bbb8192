"""``outcome``: what the environment says of the conversation is the score."""

from __future__ import annotations

from pydantic import Field

from rollout.component import nearest
from rollout.rewards.base import Reward
from rollout.trajectory import Prompt, Trajectory


class OutcomeReward(Reward):
    """Weighted sum of numbers that the environment reports; only for tasks that have environments."""

    class Config(Reward.Config):
        """Options of this reward."""

        metrics: dict[str, float] = Field(
            min_length=1, description="Names of numbers of the outcome and their weights: {success: 1.0}."
        )

    config: OutcomeReward.Config

    async def __call__(self, prompt: Prompt, trajectory: Trajectory) -> float:
        if trajectory.outcome is None:
            raise ValueError(f"prompt {prompt.prompt_id!r} has no environment, so its trajectories have no outcome")
        found, wanted = trajectory.outcome.metrics, self.config.metrics
        for name in wanted:
            if name not in found:
                raise ValueError(f"the outcome has no metric {name!r}; {nearest(name, found)}")
        return sum(weight * found[name] for name, weight in wanted.items())
