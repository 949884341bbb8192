"""The base of every class of options: what YAML and pydantic would take for something else is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


class StrictModel(BaseModel):
    """Base of every configuration model: unknown keys are errors, values are immutable, true and false no numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        # To pydantic, true is 1: a run of one step, where someone meant to switch something on.
        given = value if isinstance(value, list | tuple) else [value]
        truths = [item for item in given if isinstance(item, bool)]
        if truths and info.field_name is not None:
            kinds = set(_kinds(cls.model_fields[info.field_name].annotation))
            if kinds & {int, float} and not kinds & {bool, object}:
                raise ValueError(f"must be a number, not {str(truths[0]).lower()}")
        return value


def _kinds(annotation: Any) -> Iterator[type]:
    """The classes of the values that an annotation admits; ``object`` stands for any."""
    if get_origin(annotation) is Literal:
        yield from map(type, get_args(annotation))
    elif get_args(annotation):
        for argument in get_args(annotation):
            yield from _kinds(argument)
    elif annotation is Any:
        yield object
    elif isinstance(annotation, type):
        yield annotation
