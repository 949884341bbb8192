"""Telling what happened: to whoever watches the run, and to its file of events."""

from __future__ import annotations

from typing import Any, Protocol

from actors.recording.journal import Level


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
