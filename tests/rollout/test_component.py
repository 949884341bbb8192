"""What pydantic finds wrong with options, in words: the same for a whole configuration and for one component's."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from rollout.component import ComponentSpec, StrictModel, describe_validation_error, validation_problems


class Optimiser(StrictModel):
    lr: float = Field(1.0, gt=0.0, description="Peak learning rate.")
    warmup_frac: float = 0.1


class Tree(StrictModel):
    """A section that may hold others of its own kind."""

    left: Tree | None = None
    size: int = 1


class Options(StrictModel):
    optimiser: Optimiser = Field(default_factory=Optimiser)
    limit: float | Literal["drop"] = "drop"
    reward: ComponentSpec | None = None
    tree: Tree = Field(default_factory=Tree)
    names: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _two_at_once(self) -> Options:
        if self.limit == 13.0:
            problems = [(("optimiser", "lr"), "too small for 13"), (("names",), "too few for 13")]
            raise PydanticCustomError("cross_field", "{problems}", {"problems": problems})
        if self.limit == 14.0:
            raise ValueError("not 14")
        return self


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        ({"optimiser": {"lr": 0}}, ["r.optimiser.lr: must be greater than 0 (got 0) [Peak learning rate.]"]),
        ({"lr": 1}, ["r.lr: unknown key; there is 'r.optimiser.lr'"]),
        (
            {"optimiser": {"frac": 1}},
            ["r.optimiser.frac: unknown key; did you mean 'warmup_frac'? valid: lr, warmup_frac"],
        ),
        ({"tree": {"sise": 1}}, ["r.tree.sise: unknown key; did you mean 'size'? valid: left, size"]),
        ({"limit": "no"}, ["r.limit: must be a valid number, unable to parse string as a number or must be 'drop'"]),
        ({"reward": "exact"}, ["r.reward: must be a mapping, such as {type: NAME, option: value} (got 'exact')"]),
        ({"reward": {}}, ["r.reward.type: required but not given [Built-in name, or 'package.module:Class'"]),
        ({"names": 3}, ["r.names: must be a list (got 3)"]),
        ({"limit": 13}, ["r.optimiser.lr: too small for 13", "r.names: too few for 13"]),
        ({"limit": 14}, ["r: not 14"]),
        ({"names": [1, "b"], "tree": {"size": "x"}}, ["r.tree.size: must be", "r.names.0: must be"]),
    ],
    ids=str,
)
def test_each_problem_is_one_line(value: dict[str, object], lines: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        Options.model_validate(value)
    shown = describe_validation_error(caught.value, Options, "r").splitlines()
    assert len(shown) == len(lines)
    for line, expected in zip(shown, lines, strict=True):
        assert line.startswith(expected)
    bare = describe_validation_error(caught.value, Options, "").splitlines()
    assert bare == [line.removeprefix("r").removeprefix(".").removeprefix(": ").replace("'r.", "'") for line in shown]


def test_paths_keep_positions_as_numbers() -> None:
    with pytest.raises(ValidationError) as caught:
        Options.model_validate({"names": ["a", 2]})
    assert [path for path, _ in validation_problems(caught.value, Options, "a.b")] == [("a", "b", "names", 1)]
