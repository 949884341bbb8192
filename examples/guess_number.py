"""An environment of one's own: the policy guesses a number, and hears whether it is larger or smaller.

The prompt is a range, ``1-9``. A guess is a number by itself. The answer is ``+`` (it is larger), ``-`` (it is
smaller), ``=`` (that is it) or ``~`` (no guess): signs that the models of ``dvpo warmstart`` have tokens for.
"""

from __future__ import annotations

import random
import re

from pydantic import Field

from rollout.component import Component, StrictModel
from rollout.environment import Observation
from rollout.trajectory import Message, Outcome, Prompt


class GuessNumber(Component):
    """One game. The number follows from the seed, so the same trajectory meets the same number in every worker."""

    class Config(StrictModel):
        """Options, as they stand beside ``type`` in the configuration."""

        max_guesses: int = Field(4, ge=1, description="Guesses until the game is lost.")

    config: GuessNumber.Config

    async def reset(self, prompt: Prompt, seed: int) -> tuple[Message, ...]:
        low, high = map(int, prompt.messages[-1]["content"].split("-"))
        self.number = random.Random(seed).randint(low, high)
        self.guesses: list[str] = []
        self.found = False
        return ()

    async def step(self, response: str) -> Observation:
        self.guesses.append(response)
        answer = self.answer(response.strip())
        self.found = answer == "="
        done = self.found or len(self.guesses) == self.config.max_guesses
        return Observation(({"role": "user", "content": answer},), done)

    def answer(self, guess: str) -> str:
        """What is said to a guess."""
        if not re.fullmatch(r"[0-9]{1,9}", guess):
            return "~"
        return "=" if int(guess) == self.number else "+" if int(guess) < self.number else "-"

    def outcome(self) -> Outcome:
        valid = sum(self.answer(guess.strip()) != "~" for guess in self.guesses)
        metrics = {"found": float(self.found), "guesses": float(len(self.guesses)), "valid": valid / len(self.guesses)}
        return Outcome(metrics, {"number": self.number})

    async def close(self) -> None:
        """Nothing is held."""
