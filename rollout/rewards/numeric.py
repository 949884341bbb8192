"""``numeric``: the final answer is compared with the reference as a number."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

from pydantic import Field

from rollout.rewards.answers.numbers import last_number, only_number, parse_number
from rollout.rewards.answers.reading import ReadingReward
from rollout.rewards.exact_match import FinalAnswerConfig, find_answer, required_reference
from rollout.trajectory import FinishReason, Prompt, Trajectory


class Numeric(ReadingReward):
    """``correct`` if |answer - reference| <= max(abs_tol, rel_tol * |reference|).

    Both are parsed as exact fractions (:func:`parse_number`), so 0.1 equals 1/10 with tolerance 0. The answer may have
    words around its number that take nothing away from it, such as a unit (:func:`only_number`).
    """

    class Config(FinalAnswerConfig):
        """Options of this reward."""

        source: Literal["pattern", "last_number"] = Field(
            "pattern", description="'pattern': what answer_pattern finds; 'last_number': the last number in the text."
        )
        abs_tol: float = Field(0.0, ge=0.0, description="Allowed absolute difference.")
        rel_tol: float = Field(0.0, ge=0.0, description="Allowed difference as a share of the reference.")

    config: Numeric.Config

    def unusable(self, prompt: Prompt) -> str | None:
        """See :meth:`Reward.unusable`."""
        _number_in_reference(prompt)
        return None

    def read_answer(self, prompt: Prompt, trajectory: Trajectory) -> str | None:
        said = self.said(trajectory)
        if said is None:
            return None
        if self.config.source == "pattern":
            return find_answer(said, self.config.answer_pattern)
        answer = last_number(said)
        may_go_on = trajectory.finish_reason == FinishReason.LENGTH and last_number(said + "0") != answer
        return None if may_go_on else answer

    def answer_key(self, prompt: Prompt, trajectory: Trajectory) -> str | None:
        answer = self.read_answer(prompt, trajectory)
        value = None if answer is None else only_number(answer)
        # All that is no number has one score, and so one key.
        return "" if value is None else str(value)

    async def __call__(self, prompt: Prompt, trajectory: Trajectory) -> float:
        """The score.

        Raises:
            ValueError: the reference is missing or not a number.
        """
        reference = _number_in_reference(prompt)
        answer = self.read_answer(prompt, trajectory)
        value = None if answer is None else only_number(answer)
        if value is None:
            return self.config.no_answer
        tolerance = max(Fraction(self.config.abs_tol), Fraction(self.config.rel_tol) * abs(reference))
        return self.config.correct if abs(value - reference) <= tolerance else self.config.incorrect


def _number_in_reference(prompt: Prompt) -> Fraction:
    text = required_reference(prompt)
    reference = parse_number(text)
    if reference is None:
        raise ValueError(f"the reference of prompt {prompt.prompt_id!r} is not a number: {text!r}")
    return reference
