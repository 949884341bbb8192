"""Facts of the science task, from the data files in ``facts/`` (its README names sources and licence)."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

NUM_ELEMENTS = 118
FILES = {"elements": "elements.csv", "units": "units.csv", "constants": "constants.csv"}
"""Topic -> data file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """What can be asked about a row of a file: the value in one column, given that in another.

    Attributes:
        name: unique; values of one relation are of one kind.
        topic: key of :data:`FILES`.
        word: how questions call it.
        subject: column of what is given; ``prefix`` comes before it.
        value: column of what is asked.
    """

    name: str
    topic: str
    word: str
    subject: str
    value: str
    prefix: str = ""


RELATIONS: dict[str, Relation] = {
    relation.name: relation
    for relation in (
        Relation(name="symbol_of_element", topic="elements", word="symbol", subject="name", value="symbol"),
        Relation(
            name="symbol_of_number", topic="elements", word="symbol", subject="number", value="symbol", prefix="no."
        ),
        Relation(name="number", topic="elements", word="number", subject="symbol", value="number"),
        Relation(name="group", topic="elements", word="group", subject="symbol", value="group"),
        Relation(name="period", topic="elements", word="period", subject="symbol", value="period"),
        Relation(name="block", topic="elements", word="block", subject="symbol", value="block"),
        Relation(name="unit", topic="units", word="unit", subject="quantity", value="unit"),
        Relation(name="symbol_of_unit", topic="units", word="symbol", subject="unit", value="symbol"),
        Relation(name="value", topic="constants", word="value", subject="symbol", value="value"),
    )
}

FactKey = tuple[str, str]
"""Name of a relation, subject."""


def read_table(topic: str) -> list[dict[str, str]]:
    """The rows of a topic's data file, in the file's order."""
    text = (files("rollout.tasks") / "facts" / FILES[topic]).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def read_facts(topics: Sequence[str], num_elements: int = NUM_ELEMENTS) -> dict[FactKey, str]:
    """Values by relation and subject.

    Args:
        topics: keys of :data:`FILES`.
        num_elements: elements with a higher atomic number are left out.
    """
    facts = {}
    for topic in topics:
        rows = [row for row in read_table(topic) if topic != "elements" or int(row["number"]) <= num_elements]
        for relation in RELATIONS.values():
            if relation.topic == topic:
                # Not every element has a group, so empty cells are no facts.
                named = ((f"{relation.prefix}{row[relation.subject]}", row[relation.value]) for row in rows)
                facts.update({(relation.name, subject): value for subject, value in named if value})
    return facts


def values_by_relation(facts: Mapping[FactKey, str]) -> dict[str, tuple[str, ...]]:
    """The different values of each relation, in the order in which they come first."""
    found: dict[str, dict[str, None]] = {}
    for (relation, _), value in facts.items():
        found.setdefault(relation, {})[value] = None
    return {relation: tuple(values) for relation, values in found.items()}
