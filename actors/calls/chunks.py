"""Things that one reference stands for: bulk data that was stored together, or the parts of one answer."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from ray import ObjectRef


@dataclass(frozen=True, slots=True, eq=False)
class StoredItem:
    """A reference to one item of a chunk; awaited, it is the item.

    Attributes:
        chunk: reference of a list or tuple, in the object store or of a call in this process.
        index: place in it.
    """

    chunk: Any
    index: int

    def __await__(self) -> Generator[Any, None, Any]:
        items = yield from self.chunk.__await__()
        return items[self.index]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call finds an item: in which of the chunks that were sent along, and where in it.

    Attributes:
        chunk: which of the chunks.
        index: where in it; None: the item was stored by itself and is all of it.
    """

    chunk: int
    index: int | None


class Packing:
    """Puts items into a message as places, each chunk only once however many of its items are in it.

    Chunks are given to an actor as arguments of their own, since Ray fetches only such references before a call.

    Attributes:
        chunks: references of the chunks so far, in the order of :attr:`Place.chunk`.
    """

    def __init__(self) -> None:
        self.chunks: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def item(self, value: Any) -> Place:
        """The place of an item: a :class:`StoredItem`, or a reference of something that was stored by itself."""
        chunk, index = (value.chunk, value.index) if isinstance(value, StoredItem) else (value, None)
        if chunk not in self._numbers:
            self._numbers[chunk] = len(self.chunks)
            self.chunks.append(chunk)
        return Place(self._numbers[chunk], index)

    def argument(self, value: Any) -> Any:
        """An argument of a call as it is sent: a reference becomes a place, as Ray itself would look it up."""
        return self.item(value) if isinstance(value, StoredItem | ObjectRef) else value


def unpacked(value: Any, chunks: Sequence[Any]) -> Any:
    """What a place stands for; anything else is itself."""
    if not isinstance(value, Place):
        return value
    chunk = chunks[value.chunk]
    return chunk if value.index is None else chunk[value.index]
