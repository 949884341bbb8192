"""``dialogue``: a clerk asks a user for three things and books them, in five domains.

A conversation, the user's turns on the left::

    trip
                        where?
    rome
                        day?
    hm                                  withholds: must be asked again
                        day?
    mon no tue                          corrects themselves
                        seats?
    two
                        book R 2 2
    no fri                              changes their mind
                        book R 5 2

The booked codes stand for the words; each kind of value has its own. See :mod:`.user` for what the user understands
and for the metrics, and :mod:`.clerk` for the imperfect demonstrations of the warm start.

Evaluation splits: each domain by its name; ``test``, the domains of ``train`` together; ``ood``, the held-out domain.
The held-out domain is not in ``train``. The warm start shows some conversations in it, so that its words are known.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

from pydantic import Field

from rollout.component import StrictModel, nearest
from rollout.component.mistakes import TooFewQuestions, UnknownName
from rollout.environment import Environment
from rollout.seeding import stream
from rollout.tasks.base import Example, Task
from rollout.tasks.dialogue.clerk import Clerk, Mistakes, draw_mistakes
from rollout.tasks.dialogue.domains import DOMAINS
from rollout.tasks.dialogue.script import Script, UserConfig, draw_script
from rollout.tasks.dialogue.user import NOT_UNDERSTOOD, WITHHOLDS, SimulatedUser
from rollout.tasks.imperfection import ImperfectionConfig
from rollout.trajectory import Message, Prompt

MAX_TURNS = 8
"""The longest conversation of a perfect clerk: three questions, each asked twice, and two bookings."""
MAX_DRAWS = 1000
"""So many users that have come before, one after the other, mean that there are no others."""


class Dialogue(Task):
    """Slot filling with a simulated user; see the module's text."""

    name = "dialogue"

    class Config(StrictModel):
        """Options of the task."""

        seed: int = Field(0, ge=0, description="Fixes every user and which facts are demonstrated wrongly.")
        held_out: Literal["life", "transport", "healthcare", "social", "finance"] = Field(
            "finance", description="The domain that training does not see."
        )
        num_train: int = Field(8192, ge=4, le=1_000_000, description="Training conversations, over all domains.")
        num_eval: int = Field(128, ge=1, le=100_000, description="Evaluation conversations in each domain.")
        user: UserConfig = Field(default_factory=UserConfig, description="How difficult the users are.")
        imperfection: ImperfectionConfig = Field(
            default_factory=ImperfectionConfig, description="How wrong the demonstrations of the warm start are."
        )
        held_out_demonstrations_frac: float = Field(
            0.1, ge=0.0, le=1.0, description="Share of warm-start demonstrations in the held-out domain."
        )

    config: Dialogue.Config

    @property
    def in_domain(self) -> tuple[str, ...]:
        """The domains of ``train``."""
        return tuple(name for name in DOMAINS if name != self.config.held_out)

    @property
    def splits(self) -> tuple[str, ...]:
        return ("test", *DOMAINS, "ood")

    def examples(self, split: str) -> Sequence[Example]:
        if split not in self._by_split:
            raise UnknownName(f"task 'dialogue' has no split {split!r}; {nearest(split, ['train', *self.splits])}")
        return self._by_split[split]

    @cached_property
    def _by_split(self) -> dict[str, list[Example]]:
        found: dict[str, list[Example]] = {}
        trained: list[list[Example]] = []
        for domain in DOMAINS:
            taken: set[Script] = set()
            found[domain] = self._distinct(domain, f"test-{domain}", self.config.num_eval, taken)
            # After the evaluation users, with the same set, so that none of them is trained on.
            if domain in self.in_domain:
                share = _share(self.config.num_train, len(self.in_domain), len(trained))
                trained.append(self._distinct(domain, f"train-{domain}", share, taken))
        found["test"] = _take_turns([found[name] for name in self.in_domain])
        found["ood"] = found[self.config.held_out]
        found["train"] = _take_turns(trained)
        return found

    def _distinct(self, domain: str, name: str, count: int, taken: set[Script]) -> list[Example]:
        """``count`` users whose scripts are not in ``taken``, which they join."""
        rng, examples, repeated = stream(self.config.seed, name, 0, "dialogue/users"), list[Example](), 0
        while len(examples) < count:
            script = draw_script(DOMAINS[domain], self.config.user, rng)
            # Narrow options leave few different users; this ends what would otherwise never end.
            repeated = repeated + 1 if script in taken else 0
            if repeated > MAX_DRAWS:
                raise TooFewQuestions(
                    f"task 'dialogue': with these options of 'user' there are only about {len(taken)} different users "
                    f"in domain {domain!r}; lower num_train or num_eval"
                )
            if script not in taken:
                taken.add(script)
                examples.append(_example(f"{name}-{len(examples):06d}", script))
        return examples

    def make_environment(self, prompt: Prompt) -> Environment:
        """The user that the question comes from."""
        return SimulatedUser(Script.from_json(prompt.extra["script"]), MAX_TURNS)

    @cached_property
    def mistakes(self) -> Mistakes:
        """What the demonstrations get wrong."""
        return draw_mistakes(self.config.imperfection, stream(self.config.seed, "", 0, "dialogue/mistakes"))

    def conversation(self, example: Example, rng: random.Random) -> tuple[Message, ...]:
        """An imperfect clerk and the user of ``example`` until the user is content."""
        script = Script.from_json(example.extra["script"])
        user, clerk = SimulatedUser(script, MAX_TURNS), Clerk(DOMAINS[script.domain], self.mistakes, rng)
        heard: str | None = example.messages[-1]["content"]
        messages: list[Message] = []
        while heard is not None:
            said = clerk.reply(heard)
            messages.append({"role": "assistant", "content": said})
            heard = user.hear(said)
            if heard is not None:
                messages.append({"role": "user", "content": heard})
        return tuple(messages)

    def warmstart_examples(self, num_examples: int, rng: random.Random) -> list[Example]:
        """Fresh users, some in the held-out domain, without those of the evaluation splits."""
        taken = {Script.from_json(example.extra["script"]) for name in DOMAINS for example in self.examples(name)}
        found: list[Example] = []
        while len(found) < num_examples:
            held_out = rng.random() < self.config.held_out_demonstrations_frac
            domain = self.config.held_out if held_out else rng.choice(self.in_domain)
            script = draw_script(DOMAINS[domain], self.config.user, rng)
            if script not in taken:
                found.append(_example(f"warmstart-{len(found):06d}", script))
        return found

    def alphabet(self) -> str:
        texts = ["book no", WITHHOLDS, NOT_UNDERSTOOD]
        for domain in DOMAINS.values():
            texts += domain.openings
            for slot in domain.slots:
                texts += [slot.question, *slot.kind.codes, *slot.kind.codes.values()]
        return "".join(sorted(set("".join(texts))))

    def warmstart_options(self) -> dict[str, Any]:
        return {"ready_metric": "tcr", "num_steps": 1200, "num_decay_steps": 300, "num_demonstrations": 16384}


def _share(total: int, parts: int, index: int) -> int:
    """Part ``index`` of ``total`` split as evenly as possible."""
    return total // parts + (index < total % parts)


def _take_turns(groups: Sequence[Sequence[Example]]) -> list[Example]:
    """All examples, one of each group at a time, so that every stretch has all domains."""
    rows = itertools.zip_longest(*groups)
    return [example for row in rows for example in row if example is not None]


def _example(example_id: str, script: Script) -> Example:
    opening: Message = {"role": "user", "content": script.first_message}
    return Example(
        example_id=example_id,
        messages=(opening,),
        reference=" ".join(script.final_record),
        extra={"script": script.to_json()},
    )
