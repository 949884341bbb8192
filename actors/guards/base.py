"""A guard of the user's own: ``guards.further`` names it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from rollout.component import Component, StrictModel


@dataclass(frozen=True, slots=True)
class Alarm:
    """A number that went wrong: what is wrong in words, the number, and what it should have stayed within."""

    text: str
    value: float
    limit: float


class Guard(Component):
    """Looks at the numbers of each step. It runs in the controller's process and must not block it.

    What it remembers between steps goes through :meth:`state`, so that a resumed run finds the same.
    """

    class Config(StrictModel):
        """Options of every guard."""

        action: Literal["warn", "skip", "rollback", "stop"] = Field(
            "warn", description="What is done about an alarm. 'skip' leaves out the batch, so only before the update."
        )

    def before_update(self, rewards: Sequence[float], lengths: Sequence[int]) -> Alarm | None:
        """Look at the batch that is to be trained on: observed reward and response tokens of each trajectory."""
        return None

    def after_update(self, metrics: Mapping[str, float]) -> Alarm | None:
        """Look at what rollouts and learner report of an update; a key that was not observed is absent."""
        return None

    def state(self) -> Any:
        """What it remembers, as JSON."""
        return None

    def load_state(self, state: Any) -> None:
        """Remember what :meth:`state` gave."""
