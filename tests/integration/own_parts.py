"""Rewards, a task and an environment as users write them, in a module that every process of a test run can import."""

from __future__ import annotations

from rollout.component import Component
from rollout.environment import Environment, Observation
from rollout.rewards.base import Reward
from rollout.tasks.chain import Chain
from rollout.trajectory import Message, Outcome, Prompt, Trajectory


class Echo(Component):
    """An environment that says a number back, once, and counts what it has heard."""

    async def reset(self, prompt: Prompt, seed: int) -> tuple[Message, ...]:
        self.heard: list[str] = []
        return ()

    async def step(self, response: str) -> Observation:
        self.heard.append(response)
        return Observation(({"role": "user", "content": "1"},), done=len(self.heard) == 2)

    def outcome(self) -> Outcome:
        return Outcome({"heard": float(len(self.heard))})

    async def close(self) -> None:
        """Nothing is held."""


class UnplayableEcho(Echo):
    """One that cannot be made."""

    def __init__(self, config: object) -> None:
        raise OSError("no board")


class AnyGame(Chain):
    """For rollout workers that serve many configurations: a prompt's column ``game`` says whether it is played."""

    def make_environment(self, prompt: Prompt) -> Environment | None:
        return Echo(Echo.Config()) if prompt.extra.get("game") else None


def length(prompt: Prompt, trajectory: Trajectory, limit: int = 12) -> float:
    """A plain function."""
    return min(len(trajectory.response_text), limit) / limit


class Weighed(Reward):
    """A class that objects to what it cannot use: a reference that is no number."""

    async def __call__(self, prompt: Prompt, trajectory: Trajectory) -> float:
        assert prompt.reference is not None
        return float(float(prompt.reference) % 2)

    def unusable(self, prompt: Prompt) -> str | None:
        """See :meth:`Reward.unusable`."""
        float(prompt.reference or "nothing")
        return None


class Unlicensed(Weighed):
    """One that cannot be made."""

    def __init__(self, config: object) -> None:
        raise SystemExit("no licence")
