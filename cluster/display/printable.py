"""Texts of data on a terminal: what a model or a file says must not move the cursor, hide text or end a line."""

from __future__ import annotations

import re

# Controls but for tab and newline, separators of lines, marks that turn the direction of writing, halves of pairs.
_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""The text with every harmful character as ``\uXXXX``, which is what it is in JSON too."""
    return _HARMFUL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str, most: int) -> str:
    """The text on one line of at most ``most`` characters, white space as single spaces, printable."""
    words = printable(" ".join(text.split()))
    return words if len(words) <= most else words[: most - 1] + "…"
