"""What a task offers: prompts by split, and demonstrations for the warm start."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rollout.component import Component
from rollout.environment import Environment
from rollout.trajectory import Message, Prompt


@dataclass(frozen=True, slots=True)
class Example:
    """One question before it is rendered to tokens.

    Attributes:
        example_id: unique in its task and stable between runs.
        messages: chat messages; the last one is the user's.
        reference: what the verifier compares with, or None.
        extra: further columns, as rewards read them; values that JSON has no form for are not logged.
        place: file and line it was read from, for messages; empty if there is none.
    """

    example_id: str
    messages: tuple[Message, ...]
    reference: str | None
    extra: dict[str, Any] = field(default_factory=dict)
    place: str = field(default="", compare=False)


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

    def leave_out(self, split: str, reasons: Mapping[str, str]) -> bool:
        """Take questions that cannot be used, such as those that are too long, out of a split.

        Args:
            split: ``train`` or an evaluation split.
            reasons: why, by example id.

        Returns:
            Whether that was done. If not, nothing may start.

        Raises:
            UserError: too little is left.
        """
        return False

    def remarks(self) -> list[str]:
        """What the user should know about the data although it can be used, such as how much was left out."""
        return []

    def demonstration(self, example: Example, rng: random.Random) -> str:
        """A worked response to ``example`` for supervised warm start.

        Raises:
            NotImplementedError: the task has none.
        """
        raise NotImplementedError(f"task {self.name!r} has no demonstrations")

    def conversation(self, example: Example, rng: random.Random) -> tuple[Message, ...]:
        """What follows the question in a worked conversation: the assistant's and the user's turns by turns.

        The assistant's is the first and the last. One response, unless a task knows better.
        """
        return ({"role": "assistant", "content": self.demonstration(example, rng)},)

    def warmstart_examples(self, num_examples: int, rng: random.Random) -> list[Example]:
        """Questions that the warm start shows demonstrations of; drawn from ``train`` unless a task knows better.

        An evaluation question must not be among them.
        """
        return rng.choices(self.examples("train"), k=num_examples)

    def make_environment(self, prompt: Prompt) -> Environment | None:
        """The other side of a conversation that begins with ``prompt``; None if one response is all there is.

        Called in the rollout workers, once for each trajectory.
        """
        return None

    def alphabet(self) -> str:
        """Every character that its texts use, for building a character tokenizer in the warm start."""
        raise NotImplementedError(f"task {self.name!r} has no alphabet")

    def warmstart_options(self) -> dict[str, Any]:
        """Options of the warm start (shape of the model, length of its training) that suit this task better."""
        return {}
