"""Telling what happened: to whoever watches the run, and to its file of events."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Protocol

from actors.recording.event_log import EventLog
from actors.recording.journal import Journal, Level
from actors.recording.meters import Meters
from actors.recording.safe_text import safe


class TellEvent(Protocol):
    """Takes note of something that people who run this will want to know."""

    def __call__(self, kind: str, step: int, text: str, level: Level = "info", **details: Any) -> None:
        """Take note.

        Args:
            kind: what sort of event, one word: ``worker``, ``checkpoint``, ``guard``, ``reward``, ...
            step: updates done when it happened.
            text: one line for people.
            level: ``info``, ``warning`` or ``error``.
            details: further facts, as JSON can hold them.
        """
        ...


def teller(journal: Journal, events: EventLog, meters: Meters) -> TellEvent:
    """Tells whoever watches, events.jsonl and the meters; texts have no control characters or secrets."""

    def tell(kind: str, step: int, text: str, level: Level = "info", **details: Any) -> None:
        journal.add("event", step, safe(text), level=level)
        meters.event(kind, level)
        with suppress(OSError):  # the disk may be what the event is about
            events.write(kind, step, text, level, **details)

    return tell
