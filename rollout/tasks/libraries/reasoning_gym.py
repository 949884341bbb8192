"""``reasoning_gym``: questions that the library reasoning-gym generates, for the reward of the same name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from pydantic import Field, field_validator

from rollout.component import StrictModel, nearest
from rollout.component.mistakes import ForeignData, UnknownName
from rollout.tasks.base import Example, Task
from rollout.tasks.libraries.scores import ORIGIN, gym_data, require_library


class GymSplit(StrictModel):
    """Questions of one data set."""

    dataset: str = Field(min_length=1, description="Name of the data set, such as chain_sum.")
    size: int = Field(ge=1, le=10_000_000, description="Questions that are generated.")
    seed: int = Field(0, ge=0, description="Seed of the generator; splits of one data set need different ones.")
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the data set, by its own names.")


class ReasoningGym(Task):
    """Generated questions. A training question that is also an evaluation question is left out."""

    name = "reasoning_gym"

    class Config(StrictModel):
        """Options of the task."""

        train: GymSplit = Field(description="Training questions.")
        eval: dict[str, GymSplit] = Field(min_length=1, description="Evaluation splits by name, in-domain first.")
        system_prompt: str | None = Field(
            None, min_length=1, description="System message of every question, such as how to write the answer."
        )

        @field_validator("eval")
        @classmethod
        def _splits(cls, value: dict[str, GymSplit]) -> dict[str, GymSplit]:
            if "train" in value:
                raise ValueError("no name for an evaluation split: 'train'")
            return value

    config: ReasoningGym.Config

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        require_library("reasoning_gym", "the task 'reasoning_gym'")

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.config.eval)

    def examples(self, split: str) -> Sequence[Example]:
        if split not in self._by_split:
            raise UnknownName(f"task 'reasoning_gym' has no split {split!r}; {nearest(split, list(self._by_split))}")
        return self._by_split[split]

    def remarks(self) -> list[str]:
        lost = self.config.train.size - len(self._by_split["train"])
        if not lost:
            return []
        return [f"data.task.train: {lost} of {self.config.train.size} questions are evaluation questions and left out"]

    @cached_property
    def _by_split(self) -> dict[str, list[Example]]:
        found = {split: self._generate(options) for split, options in self.config.eval.items()}
        held_out = {question_of(example) for examples in found.values() for example in examples}
        train = [example for example in self._generate(self.config.train) if question_of(example) not in held_out]
        if not train:
            raise ForeignData("data.task.train: every training question is an evaluation question; give another seed")
        return {"train": train, **found}

    def _generate(self, split: GymSplit) -> list[Example]:
        opening = [{"role": "system", "content": self.config.system_prompt}] if self.config.system_prompt else []
        origin = split.model_dump()
        return [
            Example(
                example_id=f"{split.dataset}-{split.seed}-{index}",
                messages=(*opening, {"role": "user", "content": entry["question"]}),
                reference=None if entry["answer"] is None else str(entry["answer"]),
                extra={"dataset": split.dataset, ORIGIN: {**origin, "index": index}},
            )
            for index, entry in enumerate(gym_data(**origin))
        ]


def question_of(example: Example) -> str:
    """The text that is asked."""
    return example.messages[-1]["content"]
