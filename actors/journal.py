"""What happened in a run, in order, for whoever displays it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Literal

EntryKind = Literal["event", "step", "eval"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One happening: a line of text, the metrics of a step, or an evaluation's accuracy by split."""

    kind: EntryKind
    step: int
    text: str = ""
    values: dict[str, float] = field(default_factory=dict)


class Journal:
    """An append-only list of entries that a reader in another process polls without busy waiting."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._grown = asyncio.Event()

    def add(self, kind: EntryKind, step: int, text: str = "", values: dict[str, float] | None = None) -> None:
        """Append one entry and wake the readers."""
        self._entries.append(Entry(kind, step, text, values or {}))
        self._grown.set()

    async def read(self, cursor: int, timeout_s: float) -> list[Entry]:
        """Entries from ``cursor`` on; waits up to ``timeout_s`` for one to come."""
        if len(self._entries) <= cursor:
            self._grown.clear()
            try:
                await asyncio.wait_for(self._grown.wait(), timeout_s)
            except TimeoutError:
                return []
        return self._entries[cursor:]
