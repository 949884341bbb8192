"""Options of a critic's pieces while they are put together from what was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from learner.algorithms.critic.readouts import READOUTS
from learner.algorithms.critic.regularisers import REGULARISERS
from learner.algorithms.critic.targets import TARGETS
from learner.algorithms.critic.terms import TERMS
from rollout.component import ComponentSpec, import_object

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


def single(written: Any, default: ComponentSpec) -> dict[str, Any]:
    """The read-out or target as written, or the method's own; options without a type are of the method's own."""
    own = as_dict(default)
    if written is None:
        return own
    if isinstance(written, str):
        return {"type": written}
    return {**own, **written} if isinstance(written, Mapping) and "type" not in written else dict(written)


def as_dict(spec: ComponentSpec) -> dict[str, Any]:
    return {"type": spec.type, **spec.options}


def config_of(place: str, kind: str) -> type[BaseModel]:
    """Options of a built-in piece."""
    found: type[BaseModel] = import_object(BUILTINS[place][kind], place).Config
    return found
