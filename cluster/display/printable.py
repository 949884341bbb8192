"""Texts of data on a terminal: what a model or a file says must not move the cursor, hide text or end a line."""

from __future__ import annotations

from actors.recording.safe_text import printable

__all__ = ["one_line", "printable"]


def one_line(text: str, most: int) -> str:
    """The text on one line of at most ``most`` characters, white space as single spaces, printable."""
    words = printable(" ".join(text.split()))
    return words if len(words) <= most else words[: most - 1] + "…"
