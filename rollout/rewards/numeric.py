"""``numeric``: the final answer is compared with the reference as a number."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Literal

from pydantic import Field

from rollout.rewards.base import Reward
from rollout.rewards.exact_match import FinalAnswerConfig, find_answer, required_reference
from rollout.trajectory import Prompt, Trajectory

_UNSIGNED = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3})?"
_NUMBER = re.compile(rf"[-+]?{_UNSIGNED}(?:\s*/\s*{_UNSIGNED})?")
MAX_CHARACTERS = 1000
"""Longer texts are taken for no number: Python refuses to convert very long ones."""


def parse_number(text: str) -> Fraction | None:
    """The exact value of ``text``, or None if it is not one number.

    Understands signs, decimals, exponents, thousands commas, fractions such as ``3/4``, a trailing percent sign (which
    divides by 100), a leading currency sign, a final full stop and surrounding white space.
    """
    bare = text.strip().rstrip(".").strip().replace("\u2212", "-")
    percent = bare.endswith("%")
    bare = re.sub(r"^([-+]?)\s*[$€£]\s*", r"\1", bare.removesuffix("%").rstrip())
    if len(bare) > MAX_CHARACTERS or not _NUMBER.fullmatch(bare):
        return None
    numerator, _, denominator = bare.replace(",", "").partition("/")
    divisor = Fraction(denominator.strip()) if denominator else Fraction(1)
    if divisor == 0:
        return None
    return Fraction(numerator.strip()) / divisor / (100 if percent else 1)


def last_number(text: str) -> str | None:
    """The last number that ``text`` mentions, as written, or None."""
    found = [match.group(0) for match in _NUMBER.finditer(text)]
    return found[-1] if found else None


class Numeric(Reward):
    """``correct`` if |answer - reference| <= max(abs_tol, rel_tol * |reference|).

    Both are parsed as exact fractions (:func:`parse_number`), so 0.1 equals 1/10 with tolerance 0.
    """

    class Config(FinalAnswerConfig):
        """Options of this reward."""

        source: Literal["pattern", "last_number"] = Field(
            "pattern", description="'pattern': what answer_pattern finds; 'last_number': the last number in the text."
        )
        abs_tol: float = Field(0.0, ge=0.0, description="Allowed absolute difference.")
        rel_tol: float = Field(0.0, ge=0.0, description="Allowed difference as a share of the reference.")

    config: Numeric.Config

    async def __call__(self, prompt: Prompt, trajectory: Trajectory) -> float:
        """The score.

        Raises:
            ValueError: the reference is missing or not a number.
        """
        text = required_reference(prompt)
        reference = parse_number(text)
        if reference is None:
            raise ValueError(f"the reference of prompt {prompt.prompt_id!r} is not a number: {text!r}")
        if self.config.source == "pattern":
            answer = find_answer(trajectory.response_text, self.config.answer_pattern)
        else:
            answer = last_number(trajectory.response_text)
        value = None if answer is None else parse_number(answer)
        if value is None:
            return self.config.no_answer
        tolerance = max(Fraction(self.config.abs_tol), Fraction(self.config.rel_tol) * abs(reference))
        return self.config.correct if abs(value - reference) <= tolerance else self.config.incorrect
