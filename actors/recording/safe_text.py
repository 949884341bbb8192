"""Texts that others have made, made fit to be written down and shown: no control characters, no secrets.

Only the standard library is loaded: the reaper writes events too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
SECRET_NAMES = (
    r"(?:password|passwd|passphrase|secret|api_?key|access_?key|private_?key|secret_?key|credentials?|auth_?token|"
    r"access_?token|bearer_?token|authorization)"
)
"""Names of options, and of parameters of URLs, whose values are nobody's business."""
SHORTEST_SECRET = 8
"""Characters. A shorter value of an environment variable, such as ``1``, is found in every text."""
# Controls but for tab and newline, separators of lines, marks that turn the direction of writing, halves of pairs.
_HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_USER_OF_URL = re.compile(r"(?<=://)[^\s/@'\"<>]+(?=@)")
_PARAMETER = re.compile(
    rf"(?i)((?:[?&](?:[a-z0-9]+[_-])*(?:{SECRET_NAMES}|token|key|sig|signature)|\b(?:[a-z0-9]+[_-])*{SECRET_NAMES})=)"
    r"[^\s&'\"#,;)]+"
)
_HEADER = re.compile(
    r"(?i)(\bauthorization\W{1,4}(?:bearer|basic)|\b(?:bearer|basic)(?=\s+[^\s\d]*\d))\s+[a-z0-9._~+/=-]{8,}"
)
_SECRET_VARIABLE = re.compile(rf"(?i)(?:^|_)(?:{SECRET_NAMES}|token|key|pass)s?$")


def printable(text: str) -> str:
    r"""The text with every harmful character as ``\uXXXX``, which is what it is in JSON too."""
    return _HARMFUL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def without_secrets(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text without user names of URLs, values of parameters and headers that say that they are secret, and values
    of environment variables of such names.
    """
    for value in secret_values(environment):
        text = text.replace(value, HIDDEN)
    text = _USER_OF_URL.sub(HIDDEN, text)
    text = _PARAMETER.sub(rf"\g<1>{HIDDEN}", text)
    return _HEADER.sub(rf"\g<1> {HIDDEN}", text)


def secret_values(environment: Mapping[str, str]) -> list[str]:
    """What is in environment variables whose names end in TOKEN, KEY, SECRET, PASSWORD and the like; longest first."""
    found = {
        value
        for name, value in environment.items()
        if len(value) >= SHORTEST_SECRET and _SECRET_VARIABLE.search(name) and not value.isdigit()
    }
    return sorted(found, key=len, reverse=True)


def safe(text: str) -> str:
    """The text as it may be written down and shown."""
    return printable(without_secrets(text))


def safe_value(value: Any) -> Any:
    """A value of an event's details: every text in it as :func:`safe` has it."""
    if isinstance(value, str):
        return safe(value)
    if isinstance(value, Mapping):
        return {name: safe_value(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [safe_value(entry) for entry in value]
    return value
