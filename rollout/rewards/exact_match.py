"""``exact_match``: the final answer, found by a pattern, is compared with the reference as text."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from rollout.rewards.answers.reachable import can_find
from rollout.rewards.answers.reading import ReadingReward
from rollout.trajectory import Prompt, Trajectory

FINAL_ANSWER = r"(?:=|[Aa]nswer:)([^=\n]*)$"
"""What follows the last ``=`` or ``answer:`` of a line. Takes linear time: responses may be long and strange."""


class FinalAnswerConfig(ReadingReward.Config):
    """Options of rewards that look for a final answer."""

    answer_pattern: str = Field(
        FINAL_ANSWER,
        description="Regular expression; the answer is its only group in its last match ('^' and '$' match at lines).",
    )
    correct: float = Field(1.0, description="Score of a right answer.")
    incorrect: float = Field(0.0, description="Score of a wrong answer.")
    no_answer: float = Field(0.0, description="Score of a response in which the pattern finds no answer.")

    @field_validator("answer_pattern")
    @classmethod
    def _one_group(cls, pattern: str) -> str:
        return check_answer_pattern(pattern)


def check_answer_pattern(pattern: str) -> str:
    """``pattern`` itself.

    Raises:
        ValueError: it is not a regular expression with exactly one group; to be raised from a validator.
    """
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    if groups != 1:
        raise ValueError(f"must have exactly one group, the answer; has {groups}")
    return pattern


def find_answer(text: str, pattern: str) -> str | None:
    """The group of the last match of ``pattern`` without white space at its ends, or None."""
    last = None
    for match in re.finditer(pattern, text, re.MULTILINE):
        last = match.group(1)
    return None if last is None else last.strip()


def answer_equals(text: str, reference: str, pattern: str = FINAL_ANSWER) -> bool:
    """Whether the final answer of ``text`` is ``reference``, white space at the ends aside."""
    answer = find_answer(text, pattern)
    return answer is not None and answer == reference.strip()


def required_reference(prompt: Prompt) -> str:
    """The reference answer.

    Raises:
        ValueError: the prompt has none.
    """
    if prompt.reference is None:
        raise ValueError(f"prompt {prompt.prompt_id!r} has no reference answer to compare with")
    return prompt.reference


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


class ExactMatch(ReadingReward):
    """``correct`` if the final answer equals the reference, character by character after stripping white space."""

    class Config(FinalAnswerConfig):
        """Options of this reward."""

        ignore_case: bool = Field(False, description="Compare without regard to upper and lower case.")

    config: ExactMatch.Config

    def unusable(self, prompt: Prompt) -> str | None:
        """See :meth:`Reward.unusable`; here a reference that the pattern can never find in a response."""
        reference, pattern = required_reference(prompt).strip(), self.config.answer_pattern
        if can_find(pattern, reference, self.config.ignore_case):
            return None
        rule = "holds neither '=' nor a line break" if pattern == FINAL_ANSWER else "is never that"
        return f"the reference is {_short(reference)}, and what answer_pattern finds {rule}"

    def read_answer(self, prompt: Prompt, trajectory: Trajectory) -> str | None:
        said = self.said(trajectory)
        return None if said is None else find_answer(said, self.config.answer_pattern)

    def answer_key(self, prompt: Prompt, trajectory: Trajectory) -> str | None:
        answer = self.read_answer(prompt, trajectory) or ""
        return answer.casefold() if self.config.ignore_case else answer

    async def __call__(self, prompt: Prompt, trajectory: Trajectory) -> float:
        reference = required_reference(prompt).strip()
        answer = self.read_answer(prompt, trajectory)
        if answer is None:
            return self.config.no_answer
        if self.config.ignore_case:
            answer, reference = answer.casefold(), reference.casefold()
        return self.config.correct if answer == reference else self.config.incorrect
