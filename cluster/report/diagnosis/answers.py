"""The last thing that a response says, compared with the reference loosely: what a person would call the same."""

from __future__ import annotations

import re

from cluster.report.samples import LoggedTrajectory

_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")
_WORD = re.compile(r"[^\W_]+")


def says_reference(sample: LoggedTrajectory) -> bool | None:
    """Whether a response ends in its reference; None where there is no reference to compare with.

    Loose on purpose: the last number of both, or the last words. It only serves to find graders that miss such.
    """
    if not sample.reference:
        return None
    reference, response = final_number(sample.reference), final_number(sample.response)
    if reference is not None:
        return response == reference
    words = _WORD.findall(sample.reference.lower())
    said = _WORD.findall(sample.response.lower())
    return bool(words) and said[-len(words) :] == words


def final_number(text: str) -> str | None:
    """The last number in a text, without commas and needless zeros; None if it has none."""
    found = _NUMBER.findall(text)
    if not found:
        return None
    number = found[-1].replace(",", "").lstrip("+")
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    sign, digits = ("-", number[1:]) if number.startswith("-") else ("", number)
    return sign + (digits.lstrip("0") or "0")


def form(reference: str) -> str:
    """How a reference is written, whatever it says: digits as 0, words as a, spaces left out.

    ``-12`` and ``-7`` are ``-0``, ``\\frac{1}{2}`` is ``\\a{0}{0}``.
    """
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", "".join(reference.split())))
