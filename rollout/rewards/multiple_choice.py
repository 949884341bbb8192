"""``multiple_choice``: the letter of the answer, found by strict rules, is compared with the reference."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from rollout.rewards.answers.choices import find_choice
from rollout.rewards.answers.reading import ReadingReward
from rollout.rewards.exact_match import required_reference
from rollout.trajectory import Prompt, Trajectory


class MultipleChoice(ReadingReward):
    """``correct`` if the response gives the letter of the reference as its answer (:func:`find_choice`)."""

    class Config(ReadingReward.Config):
        """Options of this reward."""

        letters: str = Field("ABCD", description="Letters of the choices, in upper case.")
        correct: float = Field(1.0, description="Score of the right letter.")
        incorrect: float = Field(0.0, description="Score of another letter.")
        no_answer: float = Field(0.0, description="Score of a response that does not name exactly one letter.")

        @field_validator("letters")
        @classmethod
        def _capitals(cls, letters: str) -> str:
            if len(set(letters)) < len(letters) or not re.fullmatch("[A-Z]{2,}", letters):
                raise ValueError("must be at least two different letters from A to Z, such as ABCD")
            return letters

    config: MultipleChoice.Config

    def unusable(self, prompt: Prompt) -> str | None:
        """See :meth:`Reward.unusable`."""
        self._letter(prompt)
        return None

    def read_answer(self, prompt: Prompt, trajectory: Trajectory) -> str | None:
        said = self.said(trajectory)
        return None if said is None else find_choice(said, self.config.letters)

    def answer_key(self, prompt: Prompt, trajectory: Trajectory) -> str | None:
        return self.read_answer(prompt, trajectory) or ""

    async def __call__(self, prompt: Prompt, trajectory: Trajectory) -> float:
        """The score.

        Raises:
            ValueError: the reference is missing or not one of the letters.
        """
        reference = self._letter(prompt)
        choice = self.read_answer(prompt, trajectory)
        if choice is None:
            return self.config.no_answer
        return self.config.correct if choice == reference else self.config.incorrect

    def _letter(self, prompt: Prompt) -> str:
        reference = required_reference(prompt).strip()
        if len(reference) != 1 or reference not in self.config.letters:
            raise ValueError(
                f"the reference of prompt {prompt.prompt_id!r} is {reference!r}, not one of {self.config.letters}"
            )
        return reference
