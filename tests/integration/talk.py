"""An environment for tests: talks back for one to three turns, and fails on one prompt."""

from __future__ import annotations

import random

from rollout.component import Component
from rollout.environment import Observation
from rollout.trajectory import Message, Outcome, Prompt

FAILING = "failing"
"""Id of the prompt on which it raises."""


class Talk(Component):
    """Everything it says and when it ends follow from the seed and the responses."""

    async def reset(self, prompt: Prompt, seed: int) -> tuple[Message, ...]:
        self.rng = random.Random(seed)
        self.fails = prompt.prompt_id == FAILING
        self.lengths: list[int] = []
        self.last_turn = self.rng.randint(1, 3)
        return ({"role": "user", "content": "well?"},) if self.rng.random() < 0.5 else ()

    async def step(self, response: str) -> Observation:
        if self.fails:
            raise RuntimeError("out of words")
        self.lengths.append(len(response))
        reply: Message = {"role": "user", "content": f"{len(response)} letters; and {self.rng.randint(10, 99)}?"}
        return Observation((reply,), done=len(self.lengths) == self.last_turn)

    def outcome(self) -> Outcome:
        return Outcome({"turns": len(self.lengths), "letters": sum(self.lengths)}, {"lengths": self.lengths})

    async def close(self) -> None:
        pass
