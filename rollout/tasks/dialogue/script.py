"""What one user wants and how they will behave: fixed before the conversation begins."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from typing import Any

from pydantic import Field

from rollout.component import StrictModel
from rollout.tasks.dialogue.domains import DOMAINS, Domain


class UserConfig(StrictModel):
    """How difficult users are."""

    give_prob: float = Field(0.3, ge=0.0, le=1.0, description="How often the opening gives the first slot's value.")
    withhold_prob: float = Field(
        0.2, ge=0.0, le=1.0, description="How often a user does not tell a slot's value when first asked."
    )
    correct_prob: float = Field(
        0.2, ge=0.0, le=1.0, description="How often a user says a wrong value and corrects it at once."
    )
    change_prob: float = Field(
        0.3, ge=0.0, le=1.0, description="How often a user changes their mind when all is booked."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One user. Tuples have one entry for each slot of the domain, in its order.

    Attributes:
        domain: name of the domain.
        opening: one of the domain's openings.
        given: the opening tells the value of the first slot, which then need not be asked for.
        values: the words wished for at first.
        withheld: whether the first question for the slot goes unanswered.
        slips: the wrong word that is said before the right one, or "".
        change: slot and the word wished for instead once something has been booked, or None.
    """

    domain: str
    opening: str
    given: bool
    values: tuple[str, ...]
    withheld: tuple[bool, ...]
    slips: tuple[str, ...]
    change: tuple[int, str] | None

    @property
    def first_message(self) -> str:
        """What the user opens with."""
        return f"{self.opening} {self.values[0]}" if self.given else self.opening

    @property
    def final_values(self) -> tuple[str, ...]:
        """The words wished for in the end."""
        if self.change is None:
            return self.values
        slot, word = self.change
        return (*self.values[:slot], word, *self.values[slot + 1 :])

    @property
    def final_record(self) -> tuple[str, ...]:
        """The codes that ought to be booked in the end."""
        slots = DOMAINS[self.domain].slots
        return tuple(slot.kind.codes[word] for slot, word in zip(slots, self.final_values, strict=True))

    @property
    def required(self) -> tuple[int, ...]:
        """The slots that must be asked for: all that the opening does not give."""
        return tuple(range(int(self.given), len(self.values)))

    def to_json(self) -> dict[str, Any]:
        """As JSON has it; inverse of :meth:`from_json`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Script:
        """Inverse of :meth:`to_json`, also after a way through JSON text."""
        tuples = {name: tuple(row[name]) for name in ("values", "withheld", "slips")}
        change = None if row["change"] is None else (row["change"][0], row["change"][1])
        return cls(**{**row, **tuples, "change": change})


def draw_script(domain: Domain, config: UserConfig, rng: random.Random) -> Script:
    """A random user of ``domain``."""
    words = [list(slot.kind.codes) for slot in domain.slots]
    values = tuple(map(rng.choice, words))
    given = rng.random() < config.give_prob
    withheld, slips = list[bool](), list[str]()
    for index, value in enumerate(values):
        # What the opening gives away is never asked for, so nothing can be withheld or misspoken there.
        asked = index > 0 or not given
        withheld.append(asked and rng.random() < config.withhold_prob)
        slips.append(_other(words[index], value, rng) if asked and rng.random() < config.correct_prob else "")
    change = None
    if rng.random() < config.change_prob:
        slot = rng.randrange(len(values))
        change = (slot, _other(words[slot], values[slot], rng))
    return Script(
        domain=domain.name,
        opening=rng.choice(domain.openings),
        given=given,
        values=values,
        withheld=tuple(withheld),
        slips=tuple(slips),
        change=change,
    )


def _other(words: list[str], word: str, rng: random.Random) -> str:
    return rng.choice([candidate for candidate in words if candidate != word])
