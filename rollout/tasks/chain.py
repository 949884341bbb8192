"""``chain``: arithmetic modulo ten with worked steps; small enough to be learned in seconds, rich enough to fail at.

A question is a chain of additions and subtractions of digits, the response its running values, the last one after an
equals sign: ``3+4-5+2-6..`` is answered ``7 2 4=8`` (3+4=7, 7-5=2, 2+2=4, 4-6=8 modulo 10). Dots fill every question
up to one width, so that a tiny model finds its operands by relative position whatever the number of terms.

Evaluation splits:

========== ==========================================================================================================
test       questions like those of ``train``, none of which is in ``train``
six_terms  one term more than in ``train`` (six by default)
reversed   ``~``, subtraction the other way round (``3~4`` is 4-3), takes the place of ``-``
postfix    reverse Polish notation: ``34+5-2+6-`` is ``3+4-5+2-6``
ood        the three out-of-domain splits together
========== ==========================================================================================================

The demonstrations of the warm start are imperfect on purpose. A fact is an (operator, left digit, right digit); some
facts are shown wrong more often than right, always with the same wrong digit. A model that imitates them is
confidently wrong about these facts when it decodes greedily, still right now and then when it samples: head-room that
evaluation sees and that reinforcement learning can use.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pydantic import Field, model_validator

from rollout.component import StrictModel, nearest
from rollout.component.mistakes import UnknownName
from rollout.seeding import stream
from rollout.tasks.base import Example, Task
from rollout.tasks.imperfection import ImperfectionConfig

FILLER = "."
OOD_SPLITS = ("six_terms", "reversed", "postfix")


@dataclass(frozen=True, slots=True)
class Question:
    """A chain: the first digit, then (operator, digit) steps, and how it is written."""

    first: int
    steps: tuple[tuple[str, int], ...]
    postfix: bool = False

    @property
    def text(self) -> str:
        """As the prompt shows it, without the dots that fill it up."""
        pairs = (f"{digit}{operator}" if self.postfix else f"{operator}{digit}" for operator, digit in self.steps)
        return f"{self.first}{''.join(pairs)}"

    @classmethod
    def parse(cls, text: str) -> Question:
        """The question that ``text`` shows; inverse of :attr:`text`.

        Raises:
            ValueError: the text is not a question of this task.
        """
        bare = text.rstrip(FILLER)
        operators = [character for character in bare if character in "+-~"]
        digits = [int(character) for character in bare if character in "0123456789"]
        steps = tuple(zip(operators, digits[1:], strict=False))
        question = cls(digits[0] if digits else 0, steps, postfix=bare[-1:] in ("+", "-", "~"))
        if question.text != bare or not steps:
            raise ValueError(f"not a chain: {text!r}")
        return question


def apply(operator: str, left: int, right: int) -> int:
    """One step, modulo ten."""
    if operator == "+":
        return (left + right) % 10
    return ((right - left) if operator == "~" else (left - right)) % 10


def fact(operator: str, left: int, right: int) -> tuple[str, int, int]:
    """The fact a step rests on: ``a ~ b`` rests on ``b - a``."""
    return ("-", right, left) if operator == "~" else (operator, left, right)


class Chain(Task):
    """Chains of digits with worked steps; see the module's text."""

    name = "chain"

    class Config(StrictModel):
        """Options of the task."""

        seed: int = Field(0, ge=0, description="Fixes every question and which facts are demonstrated wrongly.")
        num_terms: int = Field(5, ge=2, le=16, description="Digits in one training question; steps are one fewer.")
        num_train: int = Field(8192, ge=1, le=1_000_000, description="Training questions.")
        num_eval: int = Field(512, ge=3, le=100_000, description="Questions of each evaluation split.")
        imperfection: ImperfectionConfig = Field(
            default_factory=ImperfectionConfig, description="How wrong the demonstrations of the warm start are."
        )
        ood_demonstrations_frac: float = Field(
            0.5, ge=0.0, le=1.0, description="Share of warm-start demonstrations in the out-of-domain formats."
        )
        short_demonstrations_frac: float = Field(
            0.5, ge=0.0, le=1.0, description="Share of warm-start demonstrations with fewer terms: facts first."
        )

        @model_validator(mode="after")
        def _enough_questions(self) -> Chain.Config:
            possible = 10**self.num_terms * 2 ** (self.num_terms - 1)
            if 2 * (self.num_train + self.num_eval) > possible:
                raise ValueError(
                    f"num_train + num_eval = {self.num_train + self.num_eval} is more than half of the {possible} "
                    f"questions with num_terms = {self.num_terms}"
                )
            return self

    config: Chain.Config

    @property
    def splits(self) -> tuple[str, ...]:
        return (*self._in_domain_splits, *OOD_SPLITS, "ood")

    @property
    def _in_domain_splits(self) -> tuple[str, ...]:
        return ("test",)

    def examples(self, split: str) -> Sequence[Example]:
        if split not in self._by_split:
            raise UnknownName(f"task {self.name!r} has no split {split!r}; {nearest(split, ['train', *self.splits])}")
        return self._by_split[split]

    @cached_property
    def _by_split(self) -> dict[str, list[Example]]:
        # Training questions come last: none of them may be one that is held out.
        found = {split: self._distinct(split, self.config.num_eval, set()) for split in self._in_domain_splits}
        held_out = {example.messages[0]["content"] for split in found for example in found[split]}
        found["train"] = self._distinct("train", self.config.num_train, held_out)
        for split in OOD_SPLITS:
            found[split] = self._distinct(split, self.config.num_eval, set())
        found["ood"] = [example for group in zip(*(found[s] for s in OOD_SPLITS), strict=True) for example in group]
        return found

    def _distinct(self, split: str, count: int, taken: set[str]) -> list[Example]:
        rng = stream(self.config.seed, split, 0, "chain/questions")
        seen, examples = set(taken), list[Example]()
        while len(examples) < count:
            example = self._example(f"{split}-{len(examples):06d}", self._draw(split, rng))
            if example.messages[0]["content"] not in seen:
                seen.add(example.messages[0]["content"])
                examples.append(example)
        return examples

    def _draw(self, split: str, rng: random.Random, num_steps: int | None = None) -> Question:
        num_steps = num_steps or self._num_steps(split, rng)
        operators = [rng.choice("+-") for _ in range(num_steps)]
        if split == "reversed":
            operators = [operator.replace("-", "~") for operator in operators]
            # At least one, or the question would be an ordinary one.
            operators[rng.randrange(num_steps)] = "~"
        steps = tuple((operator, rng.randrange(10)) for operator in operators)
        return Question(rng.randrange(10), steps, postfix=split == "postfix")

    def _num_steps(self, split: str, rng: random.Random) -> int:
        """Steps of a question; a difficulty that varies is drawn from ``rng``."""
        return self.config.num_terms - (split != "six_terms")

    def _example(self, example_id: str, question: Question) -> Example:
        text = question.text.ljust(2 * self.config.num_terms + 1, FILLER)
        return Example(
            example_id=example_id,
            messages=({"role": "user", "content": text},),
            reference=str(solve(question)[-1]),
            extra={},
        )

    @cached_property
    def wrong_facts(self) -> dict[tuple[str, int, int], tuple[float, int]]:
        """For each fact: the share of its demonstrations that are wrong, and the digit shown then."""
        rng = stream(self.config.seed, "", 0, "chain/facts")
        facts = [(operator, left, right) for operator in "+-" for left in range(10) for right in range(10)]

        def wrong(key: tuple[str, int, int]) -> int:
            return (apply(*key) + rng.randrange(1, 10)) % 10

        return self.config.imperfection.draw(facts, wrong, rng)

    def demonstration(self, example: Example, rng: random.Random) -> str:
        """Worked steps with the errors of :attr:`wrong_facts`; a wrong running value is carried on."""
        question = Question.parse(example.messages[-1]["content"])
        value, values = question.first, []
        for operator, digit in question.steps:
            # Looked up by the running value, so a mistake leads to other facts, as it would for a pupil.
            wrong_prob, wrong = self.wrong_facts[fact(operator, value, digit)]
            value = wrong if rng.random() < wrong_prob else apply(operator, value, digit)
            values.append(value)
        return render_steps(values)

    def warmstart_examples(self, num_examples: int, rng: random.Random) -> list[Example]:
        """Fresh questions in all formats, short ones among them, without those of the evaluation splits."""
        held_out = {example.messages[0]["content"] for split in self.splits for example in self.examples(split)}
        found: list[Example] = []
        while len(found) < num_examples:
            split = rng.choice(OOD_SPLITS) if rng.random() < self.config.ood_demonstrations_frac else "train"
            short = rng.random() < self.config.short_demonstrations_frac
            num_steps = rng.randrange(1, self.config.num_terms) if short else None
            example = self._example(f"warmstart-{len(found):06d}", self._draw(split, rng, num_steps))
            if example.messages[0]["content"] not in held_out:
                found.append(example)
        return found

    def alphabet(self) -> str:
        return f"0123456789+-~= {FILLER}"


def render_steps(values: Sequence[int]) -> str:
    """Running values as a response: ``7 2 4=8``; a single one stands alone, so that steps keep their places."""
    return "=".join(filter(None, (" ".join(map(str, values[:-1])), str(values[-1]))))


def solve(question: Question) -> list[int]:
    """The right running values."""
    values = [question.first]
    for operator, digit in question.steps:
        values.append(apply(operator, values[-1], digit))
    return values[1:]
