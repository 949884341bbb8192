"""The clerk of the demonstrations: asks, books, and makes mistakes where it is told to."""

from __future__ import annotations

import random
from collections.abc import Mapping
from enum import StrEnum

from rollout.tasks.dialogue.domains import DOMAINS, KINDS, Domain
from rollout.tasks.imperfection import ImperfectionConfig


class Rule(StrEnum):
    """What a clerk must do right besides knowing the codes."""

    ASK_AGAIN = "ask_again"
    """A value that was withheld is asked for again; else it is guessed."""
    HEAR_CORRECTION = "hear_correction"
    """Of a value and its correction the correction counts; else the first one."""
    HEAR_CHANGE = "hear_change"
    """A change of mind goes into the next booking; else the old record is booked again."""


Fact = tuple[str, str, str]
"""(kind, word, "") for the code of a word, (rule, domain, slot) for a rule."""


Mistakes = Mapping[Fact, tuple[float, str]]
"""How often a fact goes wrong, and for the code of a word the wrong code that is shown then. Others never do."""


def draw_mistakes(config: ImperfectionConfig, rng: random.Random) -> Mistakes:
    """Which facts are shown wrong, how often and how."""
    codes = {kind.name: kind.codes for kind in KINDS}
    facts: list[Fact] = [(kind.name, word, "") for kind in KINDS for word in kind.codes]
    facts += [
        (str(rule), domain.name, slot.name) for domain in DOMAINS.values() for slot in domain.slots for rule in Rule
    ]

    def draw_wrong(fact: Fact) -> str:
        right = codes.get(fact[0])
        return "" if right is None else rng.choice([code for word, code in right.items() if word != fact[1]])

    return config.draw(facts, draw_wrong, rng)


class Clerk:
    """Asks for each slot in order, books, and books again after a change of mind. Knows only what the user says.

    Args:
        domain: what the conversation is about.
        mistakes: what it gets wrong; without any it is perfect.
        rng: decides when.
    """

    def __init__(self, domain: Domain, mistakes: Mistakes, rng: random.Random) -> None:
        self._domain = domain
        self._mistakes = mistakes
        self._rng = rng
        self._notes: list[str | None] = [None] * len(domain.slots)
        self._asked: int | None = None

    def reply(self, heard: str) -> str:
        """The clerk's turn after the user said ``heard``."""
        words = [word for word in heard.split() if self._domain.slot_of_word(word) is not None]
        if words:
            self._note(words)
        elif self._asked is not None and self._fails(self._rule(Rule.ASK_AGAIN, self._asked)):
            kind = self._domain.slots[self._asked].kind
            self._notes[self._asked] = self._rng.choice(list(kind.codes.values()))
        codes = [code for code in self._notes if code is not None]
        if len(codes) == len(self._notes):
            self._asked = None
            return f"book {' '.join(codes)}"
        self._asked = self._notes.index(None)
        return self._domain.slots[self._asked].question

    def _note(self, words: list[str]) -> None:
        # The last word decides the slot; a correction names the same one twice.
        slot = self._domain.slot_of_word(words[-1])
        assert slot is not None
        if self._notes[slot] is not None and self._fails(self._rule(Rule.HEAR_CHANGE, slot)):
            return
        mishears = len(words) > 1 and self._fails(self._rule(Rule.HEAR_CORRECTION, slot))
        word, kind = words[0 if mishears else -1], self._domain.slots[slot].kind
        fact = (kind.name, word, "")
        self._notes[slot] = self._mistakes[fact][1] if self._fails(fact) else kind.codes[word]

    def _rule(self, rule: Rule, slot: int) -> Fact:
        return (str(rule), self._domain.name, self._domain.slots[slot].name)

    def _fails(self, fact: Fact) -> bool:
        return self._rng.random() < self._mistakes.get(fact, (0.0, ""))[0]
