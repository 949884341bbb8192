"""What a task offers: prompts by split, and demonstrations for the warm start."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rollout.component import Component
from rollout.trajectory import Message


@dataclass(frozen=True, slots=True)
class Example:
    """One question before it is rendered to tokens.

    Attributes:
        example_id: unique in its task and stable between runs.
        messages: chat messages; the last one is the user's.
        reference: what the verifier compares with, or None.
        extra: further columns, kept as they are.
    """

    example_id: str
    messages: tuple[Message, ...]
    reference: str | None
    extra: dict[str, Any] = field(default_factory=dict)


class Task(Component):
    """A source of questions. Everything is deterministic given the task's own ``seed`` option."""

    name: str = "task"

    @property
    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Names of the evaluation splits, in-domain first; ``train`` is not among them."""

    @abstractmethod
    def examples(self, split: str) -> Sequence[Example]:
        """All questions of ``train`` or of an evaluation split.

        Raises:
            UserError: unknown split, or data that cannot be read (path and line are named).
        """

    def demonstration(self, example: Example, rng: random.Random) -> str:
        """A worked response to ``example`` for supervised warm start.

        Raises:
            NotImplementedError: the task has none.
        """
        raise NotImplementedError(f"task {self.name!r} has no demonstrations")

    def warmstart_examples(self, num_examples: int, rng: random.Random) -> list[Example]:
        """Questions that the warm start shows demonstrations of; drawn from ``train`` unless a task knows better.

        An evaluation question must not be among them.
        """
        return rng.choices(self.examples("train"), k=num_examples)

    def alphabet(self) -> str:
        """Every character that its texts use, for building a character tokenizer in the warm start."""
        raise NotImplementedError(f"task {self.name!r} has no alphabet")
