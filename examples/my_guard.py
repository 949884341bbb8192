"""A guard in one file outside the project: responses that only get longer, as with a judge that loves length.

guards: {further: [{type: "my_guard:EverLonger", steps: 20, action: stop}]}
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from pydantic import Field

from actors.guards.base import Alarm, Guard


class EverLonger(Guard):
    """Alarms when the mean response length has grown in each of the last ``steps`` steps."""

    class Config(Guard.Config):
        """Options."""

        steps: int = Field(20, ge=2, description="Steps in a row in which the mean length grew.")

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.last, self.grown = 0.0, 0

    def before_update(self, rewards: Sequence[float], lengths: Sequence[int]) -> Alarm | None:
        """See :class:`Guard`."""
        length = fmean(lengths)
        self.grown = self.grown + 1 if length > self.last > 0.0 else 0
        self.last = length
        if self.grown < self.config.steps:
            return None
        text = f"responses have grown for {self.grown} steps in a row, to {length:.4g} tokens on average"
        return Alarm(text, float(self.grown), float(self.config.steps))

    def state(self) -> Any:
        """See :class:`Guard`."""
        return [self.last, self.grown]

    def load_state(self, state: Any) -> None:
        """See :class:`Guard`."""
        self.last, self.grown = float(state[0]), int(state[1])
