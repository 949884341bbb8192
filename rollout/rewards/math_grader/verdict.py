"""What becomes of a comparison."""

from __future__ import annotations

from enum import StrEnum


class Verdict(StrEnum):
    """What the process answers."""

    READY = "ready"
    EQUAL = "equal"
    DIFFERENT = "different"
    TOO_LARGE = "too_large"
    """An expression needs too much memory, digits or depth."""
