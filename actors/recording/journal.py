"""What happened in a run, in order, for whoever displays it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Literal

EntryKind = Literal["event", "step", "eval"]
Level = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One happening: a line of text, the metrics of a step, or an evaluation's accuracy by split."""

    kind: EntryKind
    step: int
    text: str = ""
    values: dict[str, float] = field(default_factory=dict)
    level: Level = "info"


class Journal:
    """A list of entries that one reader in another process polls without busy waiting. Bounded in memory.

    A cursor is the number of entries that the reader has got. What lies before it is forgotten at the next read, so a
    reader that did not get an answer may ask again. If nobody reads, the oldest steps are left out, and then the
    oldest of the rest; an entry says how many.

    Args:
        max_unread: entries kept for a reader that does not come.
    """

    def __init__(self, max_unread: int = 1000) -> None:
        self._max_unread = max_unread
        self._entries: list[Entry] = []
        self._first = 0  # cursor of entries[0]
        self._given = 0  # cursor up to which entries have been handed out
        self._num_left_out = 0
        self._grown = asyncio.Event()

    def add(
        self,
        kind: EntryKind,
        step: int,
        text: str = "",
        values: dict[str, float] | None = None,
        level: Level = "info",
    ) -> None:
        """Append one entry and wake the reader."""
        self._entries.append(Entry(kind, step, text, values or {}, level))
        unread = range(self._given - self._first, len(self._entries))
        if len(unread) > self._max_unread:
            oldest_step = next((i for i in unread if self._entries[i].kind == "step"), unread[0])
            del self._entries[oldest_step]
            self._num_left_out += 1
        self._grown.set()

    async def read(self, cursor: int, timeout_s: float) -> list[Entry]:
        """Entries from ``cursor`` on; waits up to ``timeout_s`` for one to come.

        Raises:
            ValueError: the cursor is before one that was read from earlier, or after all entries.
        """
        if not self._first <= cursor <= self._first + len(self._entries):
            raise ValueError(f"cursor {cursor} is outside {self._first}..{self._first + len(self._entries)}")
        del self._entries[: cursor - self._first]
        self._first = cursor
        if not self._entries:
            self._grown.clear()
            try:
                await asyncio.wait_for(self._grown.wait(), timeout_s)
            except TimeoutError:
                return []
        if self._num_left_out:
            text = f"{self._num_left_out} entries were left out here: nobody read them in time"
            place = max(0, self._given - self._first)
            self._entries.insert(place, Entry("event", self._entries[place].step, text, {}, "warning"))
            self._num_left_out = 0
        self._given = self._first + len(self._entries)
        return list(self._entries)
