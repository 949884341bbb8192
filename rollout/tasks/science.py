"""``science``: questions about chemical elements, SI units and physical constants, as multiple choice or short answer.

``period of Na?`` is answered ``=3``, and so is ``Na: period? 4/3/7/1``, which names four choices. Questions over two
facts show the first one, too: ``period of sodium?`` is answered ``Na=3``. Choices have no letters: a model that learns
the facts in a minute does not learn to point at letters in that time.

Evaluation splits; a fact itself is never held out, since it could not be guessed:

================ =====================================================================================================
test             questions like those of ``train``, none of which is in ``train`` word for word
unseen_template  about the same facts, in words that are not in ``train``
two_hop          two facts after one another (``period of sodium?``, ``successor of Na?``); ``train`` asks for one
ood              the two out-of-domain splits together
================ =====================================================================================================

The demonstrations of the warm start are imperfect (:mod:`rollout.tasks.imperfection`): some facts are shown with the
same wrong value more often than right. That value is always among the choices.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

from pydantic import Field, field_validator

from rollout.component import StrictModel, nearest
from rollout.component.mistakes import TooFewQuestions, UnknownName
from rollout.seeding import stream
from rollout.tasks.base import Example, Task
from rollout.tasks.imperfection import ImperfectionConfig
from rollout.tasks.science_facts import NUM_ELEMENTS, RELATIONS, FactKey, read_facts, values_by_relation

NUM_CHOICES = 4
TEMPLATES = ("{word} of {subject}?", "{subject}: {word}?", "{subject} has what {word}?")
UNSEEN_TEMPLATES = ("which {word} has {subject}?", "tell the {word} for {subject}.")
MAX_CHOICE_FORMS = 24
"""Multiple-choice questions that may be held out of one thing that is asked: half of its orders of the same choices."""
OOD_SPLITS = ("unseen_template", "two_hop")
SUCCESSOR = "successor"
"""The step from an atomic number to the next one; no fact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stem:
    """What is asked: a subject, and the relations that lead from it to the answer.

    Attributes:
        word: what is asked for, in the question's words.
        subject: what is given, in the question's words.
        start: the first fact's subject.
        path: relations, each applied to the value of the one before.
    """

    word: str
    subject: str
    start: str
    path: tuple[str, ...]

    def text(self, template: str) -> str:
        """The question without choices."""
        return template.format(word=self.word, subject=self.subject)


class Science(Task):
    """Questions about science; see the module's text."""

    name = "science"

    class Config(StrictModel):
        """Options of the task."""

        seed: int = Field(0, ge=0, description="Fixes every question and which facts are demonstrated wrongly.")
        topics: tuple[Literal["elements", "units", "constants"], ...] = Field(
            ("elements", "units", "constants"), min_length=1, description="What is asked about."
        )
        num_elements: int = Field(
            12, ge=12, le=NUM_ELEMENTS, description="Elements that are asked about, from hydrogen on."
        )
        choice_frac: float = Field(0.5, ge=0.0, le=1.0, description="Share of multiple-choice questions.")
        num_train: int = Field(4096, ge=1, le=1_000_000, description="Training questions; short ones may repeat.")
        num_eval: int = Field(200, ge=2, le=100_000, description="Questions of each evaluation split.")
        imperfection: ImperfectionConfig = Field(
            ImperfectionConfig(wrong_facts_frac=0.45, wrong_prob_low=0.52, wrong_prob_high=0.62),
            description="How wrong the demonstrations are.",
        )
        ood_demonstrations_frac: float = Field(
            0.4, ge=0.0, le=1.0, description="Share of warm-start demonstrations of the out-of-domain kinds."
        )

        @field_validator("topics")
        @classmethod
        def _enough_to_ask(cls, topics: tuple[str, ...]) -> tuple[str, ...]:
            if len(set(topics)) < len(topics):
                raise ValueError(f"names a topic twice: {', '.join(topics)}")
            if topics == ("constants",):
                raise ValueError("constants alone make no two-hop questions; add elements or units")
            return topics

    config: Science.Config

    @property
    def splits(self) -> tuple[str, ...]:
        return ("test", *OOD_SPLITS, "ood")

    def examples(self, split: str) -> Sequence[Example]:
        if split not in self._by_split:
            raise UnknownName(f"task 'science' has no split {split!r}; {nearest(split, ['train', *self.splits])}")
        return self._by_split[split]

    @cached_property
    def facts(self) -> dict[FactKey, str]:
        """What is asked about: values by relation and subject."""
        return read_facts(self.config.topics, self.config.num_elements)

    @cached_property
    def _values(self) -> dict[str, tuple[str, ...]]:
        """What choices and errors are drawn from: values of the facts, or of all facts where these are too few."""
        everything = values_by_relation(read_facts(self.config.topics))
        own = values_by_relation(self.facts)
        return {name: own[name] if len(own[name]) >= NUM_CHOICES else everything[name] for name in own}

    @cached_property
    def stems(self) -> dict[str, list[Stem]]:
        """All questions there are, by kind: ``one_hop`` and ``two_hop``."""

        def stem(subject: str, *path: str, word: str = "") -> Stem:
            return Stem(word=word or RELATIONS[path[-1]].word, subject=subject, start=subject, path=path)

        one_hop = [stem(subject, name) for name, subject in self.facts]
        followers = ("number", "group", "period", "block")
        two_hop = []
        for (name, subject), value in self.facts.items():
            if name in ("symbol_of_element", "symbol_of_number"):
                # "number of the element no. 11" would give its own answer away.
                own = "number" if name == "symbol_of_number" else ""
                two_hop += [stem(subject, name, end) for end in followers if end != own and (end, value) in self.facts]
            elif name == "number" and int(value) < self.config.num_elements:
                two_hop.append(stem(subject, name, SUCCESSOR, "symbol_of_number", word=SUCCESSOR))
            elif name == "unit":
                two_hop.append(
                    Stem(word="symbol", subject=f"unit of {subject}", start=subject, path=(name, "symbol_of_unit"))
                )
        return {"one_hop": one_hop, "two_hop": two_hop}

    @cached_property
    def wrong_facts(self) -> dict[FactKey, tuple[float, str]]:
        """For each fact: the share of its demonstrations that are wrong, and the value shown then."""
        rng = stream(self.config.seed, "", 0, "science/facts")

        def wrong(key: FactKey) -> str:
            return rng.choice([value for value in self._values[key[0]] if value != self.facts[key]])

        return self.config.imperfection.draw(list(self.facts), wrong, rng)

    def _walk(self, stem: Stem, look: Callable[[FactKey], str]) -> list[str] | None:
        """The values on the way to the answer, which is the last; None if a value has no such fact.

        Args:
            look: the value of a fact.
        """
        values, subject = list[str](), stem.start
        for name in stem.path:
            if name == SUCCESSOR:
                value, subject = str(int(values[-1]) + 1), f"no.{int(values[-1]) + 1}"
            elif (name, subject) in self.facts:
                value = subject = look((name, subject))
            else:
                return None
            values.append(value)
        return values

    def solve(self, stem: Stem) -> list[str]:
        """The right values on the way to the answer."""
        values = self._walk(stem, self.facts.__getitem__)
        if values is None:
            raise ValueError(f"{stem} leads nowhere")
        return values

    @cached_property
    def _by_split(self) -> dict[str, list[Example]]:
        found = {split: self._distinct(split) for split in ("test", *OOD_SPLITS)}
        held_out = {example.messages[0]["content"] for split in found for example in found[split]}
        rng = stream(self.config.seed, "train", 0, "science/questions")
        found["train"] = self._draw_all("train", self.config.num_train, held_out, rng)
        found["ood"] = [example for pair in zip(*(found[s] for s in OOD_SPLITS), strict=True) for example in pair]
        return found

    def _draw_all(self, kind: str, count: int, held_out: set[str], rng: random.Random) -> list[Example]:
        """``count`` questions, none of them held out; a question may come several times."""
        found: list[Example] = []
        while len(found) < count:
            example = self._draw(kind, f"{kind}-{len(found):06d}", rng)
            if example.messages[0]["content"] not in held_out:
                found.append(example)
        return found

    def _distinct(self, split: str) -> list[Example]:
        """Different questions of an evaluation split. No two short ones ask for the same: others stay for training."""
        rng = stream(self.config.seed, split, 0, "science/questions")
        num_choice = round(self.config.choice_frac * self.config.num_eval)
        num_short, stems = self.config.num_eval - num_choice, self._stems_of(split)
        limits = {"short": (num_short, len(stems)), "multiple-choice": (num_choice, MAX_CHOICE_FORMS * len(stems))}
        for form, (wanted, limit) in limits.items():
            if wanted > limit:
                raise TooFewQuestions(
                    f"task 'science': num_eval {self.config.num_eval} and choice_frac {self.config.choice_frac:g} make "
                    f"{wanted} {form} questions in split {split!r}, where at most {limit} can be held out; lower "
                    "num_eval or raise num_elements"
                )
        # Short questions by stem, not by wording: the same stem in other words would be the same question.
        shorts = rng.sample(stems, num_short)
        found = [self._example(stem, rng.choice(templates_of(split)), ()) for stem in shorts]
        seen = {example.messages[0]["content"] for example in found}
        while len(found) < self.config.num_eval:
            example = self._draw_choice(split, rng)
            if example.messages[0]["content"] not in seen:
                seen.add(example.messages[0]["content"])
                found.append(example)
        rng.shuffle(found)
        return [replace(example, example_id=f"{split}-{index:06d}") for index, example in enumerate(found)]

    def _stems_of(self, kind: str) -> list[Stem]:
        return self.stems["two_hop" if kind == "two_hop" else "one_hop"]

    def _draw(self, kind: str, example_id: str, rng: random.Random) -> Example:
        """A question of a split's kind."""
        if rng.random() < self.config.choice_frac:
            example = self._draw_choice(kind, rng)
        else:
            example = self._example(rng.choice(self._stems_of(kind)), rng.choice(templates_of(kind)), ())
        return replace(example, example_id=example_id)

    def _draw_choice(self, kind: str, rng: random.Random) -> Example:
        """A multiple-choice question. Usual errors, one in each fact, come first among the wrong choices."""
        stem, template = rng.choice(self._stems_of(kind)), rng.choice(templates_of(kind))
        right = self.solve(stem)[-1]
        options = {right: None}
        for name in rng.sample(stem.path, len(stem.path)):
            slipped = self._walk(stem, partial(self._slip, name))
            options |= {slipped[-1]: None} if slipped else {}
        others = [value for value in self._values[stem.path[-1]] if value not in options]
        # `options` may hold more than the number of choices; the first ones, the usual errors, win.
        missing = max(0, NUM_CHOICES - len(options))
        choices = [*options, *rng.sample(others, missing)][:NUM_CHOICES]
        return self._example(stem, template, tuple(rng.sample(choices, len(choices))))

    def _slip(self, relation: str, key: FactKey) -> str:
        return self._shown(key, key[0] == relation)

    def _shown(self, key: FactKey, is_wrong: bool) -> str:
        return self.wrong_facts[key][1] if is_wrong else self.facts[key]

    def _example(self, stem: Stem, template: str, options: tuple[str, ...]) -> Example:
        """A question without an id; its structure travels as ``extra``."""
        answer = self.solve(stem)[-1]
        text = " ".join(filter(None, (stem.text(template), "/".join(options))))
        extra = {"start": stem.start, "path": list(stem.path), "options": list(options)}
        return Example(example_id="", messages=({"role": "user", "content": text},), reference=answer, extra=extra)

    def demonstration(self, example: Example, rng: random.Random) -> str:
        """The values on the way and the answer, with the errors of :attr:`wrong_facts`, which are carried on.

        Where an error leads nowhere or to something that is not among the choices, the right way is shown.
        """
        stem = Stem(word="", subject="", start=example.extra["start"], path=tuple(example.extra["path"]))
        options = example.extra["options"]
        values = self._walk(stem, lambda key: self._shown(key, rng.random() < self.wrong_facts[key][0]))
        if values is None or (options and values[-1] not in options):
            values = self.solve(stem)
        return f"{' '.join(values[:-1])}={values[-1]}"

    def warmstart_examples(self, num_examples: int, rng: random.Random) -> list[Example]:
        """Fresh questions of all kinds, without those of the evaluation splits."""
        held_out = {example.messages[0]["content"] for split in self.splits for example in self.examples(split)}
        found: list[Example] = []
        while len(found) < num_examples:
            kind = rng.choice(OOD_SPLITS) if rng.random() < self.config.ood_demonstrations_frac else "train"
            example = self._draw(kind, f"warmstart-{len(found):06d}", rng)
            if example.messages[0]["content"] not in held_out:
                found.append(example)
        return found

    def warmstart_options(self) -> dict[str, Any]:
        """Longer than by default: what is not known yet would look like what was learned wrongly."""
        return {"num_steps": 1500, "ready_accuracy": 0.48}

    def alphabet(self) -> str:
        stems = [stem for kind in self.stems.values() for stem in kind]
        texts = [stem.text(template) for stem in stems for template in (*TEMPLATES, *UNSEEN_TEMPLATES)]
        values = [value for relation in self._values.values() for value in relation]
        return "".join(sorted(set("".join([*texts, *values, "0123456789 =/"]))))


def templates_of(kind: str) -> tuple[str, ...]:
    """The wordings of a split's questions."""
    return UNSEEN_TEMPLATES if kind == "unseen_template" else TEMPLATES
