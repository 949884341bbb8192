"""Option names that stand for options of pieces: ``cvar_coef: 0.2`` for the coef of the term lower_cvar, and so on.

They let a preset be changed by one number without writing its list of terms anew. A short key whose piece is not there
would have no effect and is refused, unless it has the piece's own default (so that a file that spells every default
out is still read).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pydantic import BaseModel

from learner.algorithms.critic.readouts import READOUTS
from learner.algorithms.critic.regularisers import REGULARISERS
from learner.algorithms.critic.targets import TARGETS
from learner.algorithms.critic.terms import TERMS
from rollout.component import ComponentSpec, UserError, import_object, nearest

Single = Literal["readout", "target"]
Listed = Literal["terms", "regularisers"]
BUILTINS: dict[str, dict[str, str]] = {
    "readout": READOUTS,
    "target": TARGETS,
    "terms": TERMS,
    "regularisers": REGULARISERS,
}
"""Built-in pieces by the option that names them."""


@dataclass
class Draft:
    """Options of pieces while short keys are put into them.

    Attributes:
        single: of the read-out and of the target, ``type`` included.
        listed: of terms and of regularisers.
        order: types of the terms in the order in which one that is switched on is put among the others.
        origins: for messages: the short key that an option came from, by the piece's identity and the option.
    """

    single: dict[str, dict[str, Any]]
    listed: dict[str, list[dict[str, Any]]]
    order: tuple[str, ...]
    origins: dict[tuple[int, str], str] = field(default_factory=dict)

    def set(self, piece: dict[str, Any], option: str, key: str, value: Any) -> None:
        """Set an option of a piece, from a short key."""
        piece[option] = value
        self.origins[id(piece), option] = key

    def named(self, place: str, kind: str) -> dict[str, Any] | None:
        """The piece of a type in a list."""
        return next((piece for piece in self.listed[place] if piece["type"] == kind), None)

    def paths(self) -> dict[str, str]:
        """Where options ended up, by their path, and the short key each came from."""
        places = [(f"algorithm.{place}", piece) for place, piece in self.single.items()]
        for place, pieces in self.listed.items():
            places += [(f"algorithm.{place}.{index}", piece) for index, piece in enumerate(pieces)]
        return {
            f"{path}.{option}": f"algorithm.{self.origins[id(piece), option]}"
            for path, piece in places
            for option in piece
            if (id(piece), option) in self.origins
        }


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
            raise UserError(f"algorithm.{key}: must be one of {', '.join(self.types)} (got {value!r})")
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
            raise UserError(_no_effect(key, f"{self.place} {piece['type']!r}", self.place, self.names))

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
            raise UserError(_no_effect(key, f"these {self.place} ({there})", self.place, self.names))

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
            raise UserError(f"algorithm.{key}: must be one of {', '.join(map(str, self.types))} (got {value!r})")
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
            raise UserError(f"algorithm.{key} has no effect {self.why}; leave it out")

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
            raise UserError(f"algorithm.{key}: unknown key; {hint}")
    short = {key: value for key, value in options.items() if key in keys}
    rest = {key: value for key, value in options.items() if key not in keys}
    for key in short:
        if key in written and keys[key].place in rest and keys[key].place in ("terms", "regularisers"):
            raise UserError(f"algorithm.{key}: given beside {keys[key].place}; write it into the piece it belongs to")
    draft = Draft(
        {place: _single(rest.get(place), config.model_fields[place].default) for place in ("readout", "target")},
        {
            "terms": [_as_dict(spec) for spec in terms],
            "regularisers": [_as_dict(spec) for spec in config.model_fields["regularisers"].default],
        },
        tuple(TERMS),
    )
    ordered = sorted(short, key=lambda key: not isinstance(keys[key], Choice | OneOf | Coef))  # types, then options
    for key in ordered:
        with nullcontext() if key in written else suppress(UserError):
            keys[key].apply(draft, key, short[key])
    pieces = {**draft.single, **{place: found for place, found in draft.listed.items() if place not in rest}}
    return {**rest, **pieces}, draft.paths()


def _single(written: Any, default: ComponentSpec) -> dict[str, Any]:
    """The read-out or target as written, or the method's own; options without a type are of the method's own."""
    own = _as_dict(default)
    if written is None:
        return own
    if isinstance(written, str):
        return {"type": written}
    return {**own, **written} if isinstance(written, Mapping) and "type" not in written else dict(written)


def _as_dict(spec: ComponentSpec) -> dict[str, Any]:
    return {"type": spec.type, **spec.options}


def _config_of(place: str, kind: str) -> type[BaseModel]:
    """Options of a built-in piece."""
    found: type[BaseModel] = import_object(BUILTINS[place][kind], place).Config
    return found


def _is_default(place: str, names: Mapping[str, str], value: Any) -> bool:
    return any(_config_of(place, kind).model_fields[name].default == value for kind, name in names.items())


def _no_effect(key: str, beside: str, place: str, names: Mapping[str, str]) -> str:
    there = " or ".join(f"{kind} ({name})" for kind, name in names.items())
    return f"algorithm.{key} has no effect with {beside}: it is an option of {place} {there}; leave it out"


def _schema(place: str, names: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    kind, name = next(iter(names.items()))
    values = _config_of(place, kind).model_json_schema()["properties"][name]
    kept = {k: v for k, v in values.items() if k not in ("title", "description", "default")}
    return f"Short for {name} of {place} {', '.join(names)}. {values.get('description', '')}".strip(), kept
