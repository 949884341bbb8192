"""What a fault that follows the response looks for: a phrase, a length, a format, or an answer that is nearly right."""

from __future__ import annotations

import re
from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from rollout.component import StrictModel
from rollout.noise.votes import final_answer, normal_form
from rollout.rewards.answers.numbers import parse_number
from rollout.trajectory import Prompt, Trajectory


class Trigger(StrictModel):
    """Options that say which responses are hit; exactly one is given."""

    TRIGGERS: ClassVar[tuple[str, ...]] = ("phrase", "longer_than_tokens", "pattern")

    phrase: str | None = Field(
        None, min_length=1, description="The trigger is this text, anywhere in the response, letter by letter."
    )
    longer_than_tokens: int | None = Field(
        None, ge=0, description="The trigger is a response of more than this many sampled tokens."
    )
    pattern: str | None = Field(
        None,
        min_length=1,
        description="The trigger is a format: this regular expression is found in the response ('^' and '$' match at "
        "lines).",
    )

    @field_validator("pattern")
    @classmethod
    def _is_a_pattern(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _one_trigger(self) -> Trigger:
        if sum(getattr(self, name) is not None for name in self.TRIGGERS) != 1:
            *others, last = (repr(name) for name in self.TRIGGERS)
            raise ValueError(f"give exactly one trigger: {', '.join(others)} or {last}")
        return self

    def shown(self, prompt: Prompt, trajectory: Trajectory) -> bool:
        """Whether the response shows the trigger."""
        if self.phrase is not None:
            return self.phrase in trajectory.response_text
        if self.longer_than_tokens is not None:
            return trajectory.num_response_tokens > self.longer_than_tokens
        assert self.pattern is not None  # validated: there is exactly one trigger
        return re.search(self.pattern, trajectory.response_text, re.MULTILINE) is not None


class WrongAnswerTrigger(Trigger):
    """The same, and what only a wrong answer can show."""

    TRIGGERS: ClassVar[tuple[str, ...]] = (*Trigger.TRIGGERS, "near_miss")

    near_miss: float | None = Field(
        None,
        gt=0.0,
        description="The trigger is an answer that misses the reference by at most this much, or where that is between "
        "-1 and 1 by this share of it; of answers that are no numbers, by one character.",
    )

    def shown(self, prompt: Prompt, trajectory: Trajectory) -> bool:
        """Whether the response shows the trigger.

        Raises:
            ValueError: a near miss is asked for, and the prompt has no reference.
        """
        if self.near_miss is None:
            return super().shown(prompt, trajectory)
        if prompt.reference is None:
            raise ValueError(
                f"prompt {prompt.prompt_id} has no reference, which the trigger 'near_miss' compares with; give "
                "another trigger"
            )
        return is_near_miss(final_answer(trajectory.response_text), prompt.reference, self.near_miss)


def is_near_miss(answer: str, reference: str, distance: float) -> bool:
    """Whether ``answer`` is not ``reference`` and close to it: numbers by their distance, texts by one edit.

    The distance is absolute, but relative to references between -1 and 1 other than 0: physical constants are small.
    One edit is a character that is put in, taken out or replaced, after both texts were brought into normal form.
    """
    found, wanted = parse_number(answer), parse_number(reference)
    if found is not None and wanted is not None:
        size = min(1.0, abs(float(wanted))) or 1.0
        return 0.0 < abs(float(found) - float(wanted)) <= distance * size
    return is_one_edit(normal_form(answer), normal_form(reference))


def is_one_edit(first: str, second: str) -> bool:
    """Whether one insertion, deletion or replacement of a character makes the one of the other; never of equal ones."""
    if first == second or abs(len(first) - len(second)) > 1:
        return False
    short, long = sorted((first, second), key=len)
    same = next((i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    return short[same + (len(short) == len(long)) :] == long[same + 1 :]
