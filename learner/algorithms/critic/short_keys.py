"""Option names that stand for options of pieces: ``cvar_coef: 0.2`` for the coef of the term lower_cvar, and so on.

They let a preset be changed by one number without writing its list of terms anew. A short key whose piece is not there
would have no effect and is refused, unless it has the piece's own default (so that a file that spells every default
out is still read).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel

from learner.algorithms.critic.draft import Draft, Listed, Single, as_dict, config_of, single
from learner.algorithms.critic.terms import TERMS
from rollout.component import ComponentSpec, UserError, nearest
from rollout.component.mistakes import GivenTwice, UnknownKey, WithoutEffect, WrongValue


class ShortKey(Protocol):
    """What a short key does to a draft."""

    @property
    def place(self) -> str:
        """The option that names the pieces which it changes."""

    def apply(self, draft: Draft, key: str, value: Any) -> None:
        """Put ``value`` where it belongs.

        Raises:
            UserError: it would have no effect, or is no value of this key.
        """

    def schema(self) -> tuple[str, dict[str, Any]]:
        """What it stands for in words, and the JSON Schema of its values."""
        ...


@dataclass(frozen=True)
class Choice:
    """Chooses the type of the read-out or of the target. Applied before options of the piece."""

    place: Single
    types: Mapping[str, str]

    def apply(self, draft: Draft, key: str, value: Any) -> None:
        """See :class:`ShortKey`."""
        if not isinstance(value, str) or value not in self.types:
            raise WrongValue(f"algorithm.{key}: must be one of {', '.join(self.types)} (got {value!r})")
        if draft.single[self.place]["type"] != self.types[value]:
            draft.single[self.place] = {"type": self.types[value]}

    def schema(self) -> tuple[str, dict[str, Any]]:
        """See :class:`ShortKey`."""
        return f"Short for the type of {self.place}.", {"enum": list(self.types)}


@dataclass(frozen=True)
class Option:
    """Sets an option of the read-out or of the target, whose name depends on its type."""

    place: Single
    names: Mapping[str, str]

    def apply(self, draft: Draft, key: str, value: Any) -> None:
        """See :class:`ShortKey`."""
        piece = draft.single[self.place]
        if piece["type"] in self.names:
            draft.set(piece, self.names[piece["type"]], key, value)
        elif not _is_default(self.place, self.names, value):
            raise WithoutEffect(_no_effect(key, f"{self.place} {piece['type']!r}", self.place, self.names))

    def schema(self) -> tuple[str, dict[str, Any]]:
        """See :class:`ShortKey`."""
        return _schema(self.place, self.names)


@dataclass(frozen=True)
class Coef:
    """Sets the weight of a term; 0 takes it out, another number puts it in."""

    term: str
    place: Listed = "terms"

    def apply(self, draft: Draft, key: str, value: Any) -> None:
        """See :class:`ShortKey`."""
        piece = draft.named(self.place, self.term)
        if value == 0.0 and not isinstance(value, bool):
            draft.listed[self.place] = [other for other in draft.listed[self.place] if other is not piece]
            return
        if piece is None:
            piece = {"type": self.term}
            pieces = draft.listed[self.place]
            later = set(draft.order[draft.order.index(self.term) :])
            at = next((i for i, other in enumerate(pieces) if other["type"] in later), len(pieces))
            pieces.insert(at, piece)
        draft.set(piece, "coef", key, value)

    def schema(self) -> tuple[str, dict[str, Any]]:
        """See :class:`ShortKey`."""
        return f"Short for the coef of the term {self.term}; 0 leaves the term out.", {"type": "number", "minimum": 0}


@dataclass(frozen=True)
class Inside:
    """Sets an option of every listed piece that has it; names by the type of the piece."""

    names: Mapping[str, str]
    place: Listed = "terms"
    default: Any = None
    """The method's own default, where it is not the piece's."""

    def apply(self, draft: Draft, key: str, value: Any) -> None:
        """See :class:`ShortKey`."""
        found = [piece for piece in draft.listed[self.place] if piece["type"] in self.names]
        for piece in found:
            draft.set(piece, self.names[piece["type"]], key, value)
        if not found and value != self.default and not _is_default(self.place, self.names, value):
            there = ", ".join(piece["type"] for piece in draft.listed[self.place]) or "none"
            raise WithoutEffect(_no_effect(key, f"these {self.place} ({there})", self.place, self.names))

    def schema(self) -> tuple[str, dict[str, Any]]:
        """See :class:`ShortKey`."""
        return _schema(self.place, self.names)


@dataclass(frozen=True)
class OneOf:
    """Chooses which of several regularisers is there, by a value; a value may stand for none."""

    types: Mapping[Any, str | None]
    place: Listed = "regularisers"

    def apply(self, draft: Draft, key: str, value: Any) -> None:
        """See :class:`ShortKey`."""
        if not isinstance(value, Hashable) or value not in self.types:
            raise WrongValue(f"algorithm.{key}: must be one of {', '.join(map(str, self.types))} (got {value!r})")
        kinds, pieces = [kind for kind in self.types.values() if kind], draft.listed[self.place]
        kept = [piece for piece in pieces if piece["type"] not in kinds or piece["type"] == self.types[value]]
        chosen = self.types[value]
        if chosen and all(piece["type"] != chosen for piece in kept):
            kept.append({"type": chosen})
        draft.listed[self.place] = kept

    def schema(self) -> tuple[str, dict[str, Any]]:
        """See :class:`ShortKey`."""
        return f"Short for which of the {self.place} is there.", {"enum": list(self.types)}


@dataclass(frozen=True)
class Anywhere:
    """Sets an option wherever it is: of listed pieces and of a single one."""

    parts: tuple[Inside | Option, ...]
    place: Listed = "terms"

    def apply(self, draft: Draft, key: str, value: Any) -> None:
        """See :class:`ShortKey`."""
        refusals = []
        for part in self.parts:
            try:
                part.apply(draft, key, value)
            except UserError as refusal:
                refusals.append(refusal)
        if len(refusals) == len(self.parts):
            raise refusals[0]

    def schema(self) -> tuple[str, dict[str, Any]]:
        """See :class:`ShortKey`."""
        return self.parts[0].schema()


@dataclass(frozen=True)
class Nothing:
    """A key that has no effect in this method; only its old default is read."""

    default: Any
    why: str
    place: Listed = "terms"

    def apply(self, draft: Draft, key: str, value: Any) -> None:
        """See :class:`ShortKey`."""
        if value != self.default:
            raise WithoutEffect(f"algorithm.{key} has no effect {self.why}; leave it out")

    def schema(self) -> tuple[str, dict[str, Any]]:
        """See :class:`ShortKey`."""
        return f"Has no effect {self.why}.", {"const": self.default}


def expand(
    options: Mapping[str, Any],
    written: Collection[str],
    keys: Mapping[str, ShortKey],
    config: type[BaseModel],
    terms: tuple[ComponentSpec, ...],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Options with every short key put into the piece that it belongs to.

    Args:
        options: of the preset, and what the user wrote on top.
        written: those that the user wrote. What a preset says of a piece that the user has taken out is dropped.
        keys: short keys of the method.
        config: its options; their defaults are what short keys change.
        terms: its terms unless others are written.

    Returns:
        The options, and for messages: the short key that an option came from, by the option's path.

    Raises:
        UserError: a short key has no effect, or stands beside the pieces that it would change; or a key is unknown.
    """
    for key in options:
        if key not in keys and key not in config.model_fields:
            hint = nearest(key, [*config.model_fields, *keys])
            raise UnknownKey(f"algorithm.{key}: unknown key; {hint}")
    short = {key: value for key, value in options.items() if key in keys}
    rest = {key: value for key, value in options.items() if key not in keys}
    for key in short:
        if key in written and keys[key].place in rest and keys[key].place in ("terms", "regularisers"):
            raise GivenTwice(f"algorithm.{key}: given beside {keys[key].place}; write it into the piece it belongs to")
    draft = Draft(
        {place: single(rest.get(place), config.model_fields[place].default) for place in ("readout", "target")},
        {
            "terms": [as_dict(spec) for spec in terms],
            "regularisers": [as_dict(spec) for spec in config.model_fields["regularisers"].default],
        },
        tuple(TERMS),
    )
    ordered = sorted(short, key=lambda key: not isinstance(keys[key], Choice | OneOf | Coef))  # types, then options
    for key in ordered:
        with nullcontext() if key in written else suppress(UserError):
            keys[key].apply(draft, key, short[key])
    pieces = {**draft.single, **{place: found for place, found in draft.listed.items() if place not in rest}}
    return {**rest, **pieces}, draft.paths()


def _is_default(place: str, names: Mapping[str, str], value: Any) -> bool:
    return any(config_of(place, kind).model_fields[name].default == value for kind, name in names.items())


def _no_effect(key: str, beside: str, place: str, names: Mapping[str, str]) -> str:
    there = " or ".join(f"{kind} ({name})" for kind, name in names.items())
    return f"algorithm.{key} has no effect with {beside}: it is an option of {place} {there}; leave it out"


def _schema(place: str, names: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    kind, name = next(iter(names.items()))
    values = config_of(place, kind).model_json_schema()["properties"][name]
    kept = {k: v for k, v in values.items() if k not in ("title", "description", "default")}
    return f"Short for {name} of {place} {', '.join(names)}. {values.get('description', '')}".strip(), kept
