"""What can be booked: five domains of three slots each, and the words and codes of their values.

Two slots of every domain share their kind of value (a day, a time of day, a number) with slots of other domains, one
has values of its own. No word belongs to two kinds, and no domain has one kind twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value. ``codes`` maps the word that a user says to the code that is booked, one character."""

    name: str
    codes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Slot:
    """Something the clerk must know, the question that asks for it, and its kind of value."""

    name: str
    question: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain: the ways in which a user opens, and the slots in the order in which they are booked."""

    name: str
    openings: tuple[str, ...]
    slots: tuple[Slot, ...]

    def slot_of_word(self, word: str) -> int | None:
        """Index of the slot that has the value ``word``, or None."""
        return next((i for i, slot in enumerate(self.slots) if word in slot.kind.codes), None)


DAY = Kind("day", {"mon": "1", "tue": "2", "wed": "3", "thu": "4", "fri": "5", "sat": "6", "sun": "7"})
TIME = Kind("time", {"early": "E", "dawn": "A", "noon": "N", "dusk": "U", "late": "L"})
NUMBER = Kind("number", {"one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6"})
WORK = Kind("work", {"tap": "T", "oven": "O", "lamp": "L", "door": "D"})
PLACE = Kind("place", {"rome": "R", "oslo": "O", "kyiv": "K", "lima": "L"})
DOCTOR = Kind("doctor", {"eye": "E", "skin": "S", "ear": "A", "heart": "H"})
EVENT = Kind("event", {"film": "F", "walk": "W", "dance": "D", "lunch": "L"})
BILL = Kind("bill", {"rent": "R", "tax": "X", "loan": "L", "gas": "G"})
KINDS = (DAY, TIME, NUMBER, WORK, PLACE, DOCTOR, EVENT, BILL)

DOMAINS: dict[str, Domain] = {
    domain.name: domain
    for domain in (
        Domain(
            "life",
            ("repair", "fix"),
            (Slot("work", "what?", WORK), Slot("day", "day?", DAY), Slot("time", "time?", TIME)),
        ),
        Domain(
            "transport",
            ("trip", "ride"),
            (Slot("place", "where?", PLACE), Slot("day", "day?", DAY), Slot("seats", "seats?", NUMBER)),
        ),
        Domain(
            "healthcare",
            ("doctor", "clinic"),
            (Slot("doctor", "who?", DOCTOR), Slot("time", "time?", TIME), Slot("day", "day?", DAY)),
        ),
        Domain(
            "social",
            ("party", "meet"),
            (Slot("event", "event?", EVENT), Slot("guests", "guests?", NUMBER), Slot("time", "time?", TIME)),
        ),
        Domain(
            "finance",
            ("pay", "bank"),
            (Slot("bill", "bill?", BILL), Slot("parts", "parts?", NUMBER), Slot("day", "day?", DAY)),
        ),
    )
}
"""Domain by name: life services, transport, healthcare, social, finance."""
