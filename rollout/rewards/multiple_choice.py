"""``multiple_choice``: the letter of the answer, found by strict rules, is compared with the reference."""

from __future__ import annotations

import re
from collections import deque

from pydantic import Field, field_validator

from rollout.rewards.base import Reward
from rollout.rewards.exact_match import required_reference
from rollout.trajectory import Prompt, Trajectory

CLAIMS = (r"answer(?:\s+is)?\s*:?|\\boxed(?=\{)", r"=")
"""What comes before an answer; the second only where the first is nowhere."""
OPENING = r"[\s*_\"'(\[{]*+"
CLOSING = r"[\s*_\"')\]}]*+"
ARTICLES = "AI"
"""Letters that are words, too."""


def find_choice(text: str, letters: str) -> str | None:
    r"""The one letter that ``text`` gives as its answer, or None.

    A claim is ``answer: B``, ``the answer is (B)`` or ``\boxed{B}``, or ``= B`` if there is none of these; or the
    whole text is one letter, as in ``(B).``. The last claim counts. It must name exactly one letter, in upper case,
    that stands alone: ``answer: A or B``, ``answer: Apple`` and ``the answer is A cat`` are no answers. The choice's
    text may follow after a mark, as in ``answer: B) iron``.
    """
    letter = f"([{re.escape(letters)}])(?![A-Za-z0-9])"
    whole = re.fullmatch(rf"{OPENING}{letter}{CLOSING}\.?\s*+", text)
    if whole is not None:
        return whole.group(1)
    rest = _after_last_claim(text)
    found = re.match(OPENING + letter, rest)
    if found is None:
        return None
    choice, rest = found.group(1), rest[found.end() :]
    if re.match(rf"(?:[)\]}}]?\s*+(?:,|/|&|\bor\b|\band\b)|\s++){OPENING}{letter}", rest):
        return None
    if choice in ARTICLES and re.match(r"\s++(?!because\b|since\b|as\b)[a-z]", rest):
        return None
    return choice


def _after_last_claim(text: str) -> str:
    """What follows the last claim in its line; empty if there is none."""
    for pattern in CLAIMS:
        last = deque(re.finditer(pattern, text, re.IGNORECASE), maxlen=1)
        if last:
            return text[last[0].end() :].split("\n", 1)[0]
    return ""


class MultipleChoice(Reward):
    """``correct`` if the response gives the letter of the reference as its answer (:func:`find_choice`)."""

    class Config(Reward.Config):
        """Options of this reward."""

        letters: str = Field("ABCD", description="Letters of the choices, in upper case.")
        correct: float = Field(1.0, description="Score of the right letter.")
        incorrect: float = Field(0.0, description="Score of another letter.")
        no_answer: float = Field(0.0, description="Score of a response that does not name exactly one letter.")

        @field_validator("letters")
        @classmethod
        def _capitals(cls, letters: str) -> str:
            if len(set(letters)) < max(2, len(letters)) or not re.fullmatch("[A-Z]+", letters):
                raise ValueError("must be at least two different letters from A to Z, such as ABCD")
            return letters

    config: MultipleChoice.Config

    async def __call__(self, prompt: Prompt, trajectory: Trajectory) -> float:
        """The score.

        Raises:
            ValueError: the reference is missing or not one of the letters.
        """
        reference = required_reference(prompt).strip()
        if len(reference) != 1 or reference not in self.config.letters:
            raise ValueError(
                f"the reference of prompt {prompt.prompt_id!r} is {reference!r}, not one of {self.config.letters}"
            )
        choice = find_choice(trajectory.response_text, self.config.letters)
        if choice is None:
            return self.config.no_answer
        return self.config.correct if choice == reference else self.config.incorrect
