"""``verifiers``: tasksets of the library verifiers that ask one question and want one response."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from pydantic import Field, field_validator

from rollout.component import StrictModel, nearest
from rollout.component.mistakes import ForeignData, UnknownName
from rollout.tasks.base import Example, Task
from rollout.tasks.libraries.scores import ORIGIN, require_library, taskset
from rollout.trajectory import Message


class TasksetSplit(StrictModel):
    """A taskset, or a part of it."""

    taskset: str = Field(min_length=1, description="Its module, or the name of an installed package.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the taskset, by its own names.")
    skip: int = Field(0, ge=0, description="Leave out so many tasks at the beginning.")
    size: int | None = Field(None, ge=1, description="Take so many of the others; none is all.")


class Verifiers(Task):
    """Questions of tasksets, for the reward of the same name. What needs tools, turns or a container is refused."""

    name = "verifiers"

    class Config(StrictModel):
        """Options of the task."""

        train: TasksetSplit = Field(description="Training questions.")
        eval: dict[str, TasksetSplit] = Field(min_length=1, description="Evaluation splits by name, in-domain first.")

        @field_validator("eval")
        @classmethod
        def _splits(cls, value: dict[str, TasksetSplit]) -> dict[str, TasksetSplit]:
            if "train" in value:
                raise ValueError("no name for an evaluation split: 'train'")
            return value

    config: Verifiers.Config

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        require_library("verifiers", "the task 'verifiers'")

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.config.eval)

    def examples(self, split: str) -> Sequence[Example]:
        if split not in self._by_split:
            raise UnknownName(f"task 'verifiers' has no split {split!r}; {nearest(split, list(self._by_split))}")
        return self._by_split[split]

    @cached_property
    def _by_split(self) -> dict[str, list[Example]]:
        return {name: _questions(split) for name, split in {"train": self.config.train, **self.config.eval}.items()}


def _questions(split: TasksetSplit) -> list[Example]:
    origin: dict[str, Any] = {"taskset": split.taskset, "options": split.options}
    end = None if split.size is None else split.skip + split.size
    named = list(taskset(split.taskset, split.options).items())[split.skip : end]
    if not named:
        raise ForeignData(f"taskset {split.taskset!r}: there is no task after the first {split.skip}")
    return [
        Example(
            example_id=name,
            messages=_messages(task.data, f"taskset {split.taskset!r}: task {name}"),
            reference=None,
            extra={ORIGIN: {**origin, "name": name}},
        )
        for name, task in named
    ]


def _messages(data: Any, where: str) -> tuple[Message, ...]:
    """The opening of the conversation.

    Raises:
        UserError: there is more in it than text.
    """
    system: list[Message] = [{"role": "system", "content": data.system_prompt}] if data.system_prompt else []
    if isinstance(data.prompt, str):
        return (*system, {"role": "user", "content": data.prompt})
    for message in data.prompt:
        if not isinstance(message.content, str):
            raise ForeignData(f"{where}: a message of its prompt is not text")
    return (*system, *({"role": str(message.role), "content": message.content} for message in data.prompt))
