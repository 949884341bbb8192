"""What stands on the other side of a conversation: a user, a game, a tool. One environment serves one trajectory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from rollout.trajectory import Message, Outcome, Prompt


@dataclass(frozen=True, slots=True)
class Observation:
    """What an environment says to a response.

    Attributes:
        messages: what is appended to the conversation before the policy speaks again; its tokens are context, never
            trained on. May be empty when ``done``.
        done: the conversation is over.
    """

    messages: tuple[Message, ...] = ()
    done: bool = False


class Environment(Protocol):
    """The other side of one conversation. Any class with these methods is one; nothing has to be inherited.

    All methods run on the rollout worker's event loop and must not block it.
    """

    async def reset(self, prompt: Prompt, seed: int) -> tuple[Message, ...]:
        """Begin. Called once, before the first response.

        Args:
            prompt: the question; its messages are already part of the conversation.
            seed: fixes everything random; the same in whichever worker serves the trajectory.

        Returns:
            Messages that follow the prompt's, often none.
        """
        ...

    async def step(self, response: str) -> Observation:
        """Answer a response, which is the decoded text of one turn without special tokens."""
        ...

    def outcome(self) -> Outcome:
        """What became of the conversation so far; also asked for when it was cut."""
        ...

    async def close(self) -> None:
        """Give up what is held. Called once at the end, also after errors."""
        ...


MakeEnvironment = Callable[[Prompt], Environment | None]
"""See :meth:`rollout.tasks.base.Task.make_environment`."""
