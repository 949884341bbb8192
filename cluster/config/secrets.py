"""A configuration holds no secrets: it is copied into the run's folder, to trackers and into reports."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from actors.recording.safe_text import SECRET_NAMES
from cluster.config.yaml_source import ConfigSource
from rollout.component import KeyPath, UserError, dotted
from rollout.component.mistakes import SecretInFile

_SECRET_OPTION = re.compile(rf"(?i)(?:^|_){SECRET_NAMES}$")
_SECRET_PARAMETER = re.compile(rf"(?i)(?:^|[_-])(?:{SECRET_NAMES}|token|key|sig|signature)$")
_REFERENCE = re.compile(r"\$(?:\w+|\{\w+\})")
"""``$NAME`` or ``${NAME}``, which stands for an environment variable."""


def refuse_secrets(source: ConfigSource) -> None:
    """Look at every text of a configuration.

    Raises:
        UserError: one is a credential; the message says where it is, never what it is.
    """
    problems = [
        f"{_place(source, path)}: {dotted(path)}: {what}; the configuration is copied to the run's folder and to "
        "trackers. Put it into an environment variable: docs/security.md, 'Secrets'"
        for path, what in _secrets(source.data, ())
    ]
    if problems:
        raise UserError("\n".join(str(SecretInFile(problem)) for problem in problems))


def _secrets(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Where credentials are below a value, and what gives them away."""
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield from _secrets(entry, (*path, str(name)))
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            yield from _secrets(entry, (*path, index))
    elif isinstance(value, str):
        named = path and _SECRET_OPTION.search(str(path[-1])) and _is_literal(value)
        what = "an option of this name holds a secret" if named else _secret_of_url(value)
        if what:
            yield path, what


def _secret_of_url(text: str) -> str:
    """Which credential a URL holds; empty if it is none, or holds only names of variables."""
    if "://" not in text:
        return ""
    try:
        parts = urlsplit(text)
        user, at, _ = parts.netloc.rpartition("@")
        parameters = parse_qsl(parts.query)
    except ValueError:  # no URL
        return ""
    if at and any(_is_literal(part) for part in user.split(":")):
        return "its URL holds a user name or a password"
    named = [name for name, value in parameters if _SECRET_PARAMETER.search(name) and _is_literal(value)]
    return f"parameter {named[0]!r} of its URL holds a secret" if named else ""


def _is_literal(text: str) -> bool:
    return bool(text) and _REFERENCE.fullmatch(text) is None


def _place(source: ConfigSource, path: KeyPath) -> str:
    """Where it was written; of ``--set KEY=VALUE`` without the value."""
    return source.place(path).partition("=")[0]
