"""What is said aloud: a response without its thoughts. Every built-in grader reads this and nothing else."""

from __future__ import annotations

import re
from functools import lru_cache

from pydantic import Field, field_validator, model_validator

from rollout.component import StrictModel

Marks = tuple[tuple[str, str], ...]
"""Pairs of an opening and a closing mark; an empty opening one is never written."""

USUAL_MARKS: Marks = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<thoughts>", "</thoughts>"),
    ("<reasoning>", "</reasoning>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
    ("", "assistantfinal"),  # the same with its special tokens removed
)
"""Marks of thoughts that open models write, in upper or lower case."""


class ThinkingConfig(StrictModel):
    """How thoughts are told from what is said."""

    marks: tuple[tuple[str, str], ...] = Field(
        USUAL_MARKS,
        description="Pairs [opening, closing] of marks around a thought, in any case; an opening one may be empty, if "
        "it is never written. Only what follows the last closing mark counts. []: the whole response counts.",
    )
    prompt_opens: bool = Field(
        False,
        description="The prompt ends inside a thought, because the chat template writes the opening mark: a response "
        "without a closing one is then a thought that was cut, and has no answer.",
    )

    @field_validator("marks")
    @classmethod
    def _closed(cls, marks: Marks) -> Marks:
        for opening, closing in marks:
            if not closing.strip() or opening.casefold() == closing.casefold():
                raise ValueError(f"a pair needs a closing mark other than the opening one, got {[opening, closing]}")
        return marks

    @model_validator(mode="after")
    def _effective(self) -> ThinkingConfig:
        if self.prompt_opens and not self.marks:
            raise ValueError("prompt_opens has no effect without marks")
        return self


def spoken(response: str, config: ThinkingConfig) -> str | None:
    """What follows the last closing mark of a thought; all of a response without thoughts.

    Returns:
        None if the last thought was cut: opened and not closed, or opened by the prompt and not closed.
    """
    if not config.marks:
        return response
    openings, closings = _patterns(config.marks)
    end = None
    for match in closings.finditer(response):
        end = match.end()
    if end is None and config.prompt_opens:
        return None
    rest = response[end or 0 :]
    return None if openings is not None and openings.search(rest) else rest


def names_a_mark(pattern: str, config: ThinkingConfig) -> bool:
    """Whether a regular expression speaks of a thought's marks itself, so that it is meant for the whole response."""
    plain = pattern.replace("\\", "").casefold()
    return any(mark.casefold() in plain for pair in config.marks for mark in pair if mark)


@lru_cache(maxsize=64)
def _patterns(marks: Marks) -> tuple[re.Pattern[str] | None, re.Pattern[str]]:
    """What finds opening and closing marks; the first is None if none is ever written."""
    openings = [re.escape(opening) for opening, _ in marks if opening.strip()]
    closings = [re.escape(closing) for _, closing in marks]
    found = re.compile("|".join(openings), re.IGNORECASE) if openings else None
    return found, re.compile("|".join(closings), re.IGNORECASE)
