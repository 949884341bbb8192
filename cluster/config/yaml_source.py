"""A configuration file as data that remembers where each value was written.

How single values are read is in :mod:`cluster.config.yaml_values`; here, a key that is given twice is refused, since
the second would win silently.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from cluster.config.yaml_values import Loader, refuse_trap, refuse_traps
from rollout.component import KeyPath, dotted
from rollout.component.mistakes import BadOverride, GivenTwice, NotFound, NotYaml, Unreadable

_KEY_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")
_MAX_DEPTH = 32
"""Deeper than any configuration; an anchor that contains itself is endless."""


class ConfigSource:
    """Values of one YAML file with overrides applied.

    Attributes:
        file: the file as the user named it, for messages.
        data: the nested values.
    """

    def __init__(self, file: str, data: dict[str, Any], lines: dict[KeyPath, int]) -> None:
        self.file = file
        self.data = data
        self._lines = lines
        self._overrides: dict[KeyPath, str] = {}

    def place(self, path: Sequence[str | int]) -> str:
        """Where the value at ``path``, or the nearest thing around it, was written: ``file:line`` or ``--set ...``."""
        # From the value outwards; at each step an override counts before a line, as its value does.
        for end in range(len(path), 0, -1):
            head = tuple(path[:end])
            if head in self._overrides:
                return self._overrides[head]
            if head in self._lines:
                return f"{self.file}:{self._lines[head]}"
            below = [place for override, place in self._overrides.items() if override[:end] == head]
            if below:
                return below[-1]
        return self.file

    def locate(self, message: str) -> str:
        """Put the place in front of each line of ``message`` that starts with ``dotted.key.path: ``."""
        located = []
        for line in message.splitlines():
            head, colon, _ = line.partition(": ")
            # Other lines go on with what the line before began.
            is_path = bool(colon) and re.fullmatch(r"[a-z_]\w*(\.\w+)*", head) is not None
            keys = tuple(int(part) if part.isdigit() else part for part in head.split("."))
            located.append(f"{self.place(keys)}: {line}" if is_path else line)
        return "\n".join(located)

    def describe(self, problems: Iterable[tuple[KeyPath, str]]) -> str:
        """A line for each problem with the value at a path, which may be empty: where it was written, key, message."""
        return "\n".join(
            f"{self.place(path)}: {dotted(path)}: {message}" if path else f"{self.file}: {message}"
            for path, message in problems
        )

    def override(self, assignment: str) -> None:
        """Apply ``a.b=value``; the value is read as YAML.

        List positions are numbers; the one after the last appends.

        Raises:
            UserError: not of that form, or the path leads through something that is not a mapping or a list.
        """
        key, equals, text = assignment.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(re.fullmatch(r"\w+", part) for part in parts):
            raise BadOverride(f"--set {assignment}: must be KEY=VALUE, for example --set training.num_steps=10")
        try:
            refuse_traps(text, f"--set {assignment}")
            value = yaml.load(text, Loader=Loader)
        except yaml.YAMLError as error:
            raise BadOverride(f"--set {assignment}: the value is not valid YAML: {_problem(error)}") from error
        self.assign(key.strip(), value, f"--set {assignment}")

    def assign(self, key: str, value: Any, place: str) -> None:
        """Set the value at the dotted ``key``; ``place`` says where that was asked for, for messages.

        Raises:
            UserError: the path leads through something that is not a mapping or a list.
        """
        keys: KeyPath = tuple(int(part) if part.isdigit() else part for part in key.split("."))
        self._put(keys, value, place)
        # What was written below this key is gone, and so are its places.
        self._lines = {path: line for path, line in self._lines.items() if path[: len(keys)] != keys}
        self._overrides = {path: was for path, was in self._overrides.items() if path[: len(keys)] != keys}
        self._overrides[keys] = place

    def rename(self, former: KeyPath, key: KeyPath) -> None:
        """Move the value at ``former``, if there is one, to ``key``; its place stays where the user wrote it.

        Raises:
            UserError: both are given, in the file or both by ``--set``.
        """
        section = self._section(former)
        if section is None:
            return
        if self._section(key) is not None:
            place, other = self.place(former), self.place(key)
            if place.startswith("--set ") == other.startswith("--set "):
                raise GivenTwice(
                    f"{place}: {dotted(former)}: the former name of {dotted(key)}, which is given too ({other}); keep "
                    "that one"
                )
            if other.startswith("--set "):  # the command line has the last word, as it has with one name
                del section[former[-1]]
                return
        self._put(key, section.pop(former[-1]), place=self.place(former))
        self._lines = _moved(self._lines, former, key)
        self._overrides = _moved(self._overrides, former, key)

    def _section(self, path: KeyPath) -> dict[Any, Any] | None:
        """The mapping that holds a value at ``path``; None where there is none."""
        node: Any = self.data
        for key in path[:-1]:
            node = node.get(key) if isinstance(node, dict) else None
        return node if isinstance(node, dict) and path[-1] in node else None

    def _put(self, keys: KeyPath, value: Any, place: str) -> None:
        """Set ``value`` at ``keys``, making the mappings on the way; ``place`` is where that was asked for."""
        node: Any = self.data
        for depth, key in enumerate(keys):
            last = depth == len(keys) - 1
            if isinstance(node, dict) and isinstance(key, str):
                child = node.get(key)
                # A name alone is short for a mapping, which an option of the algorithm needs.
                if keys[: depth + 1] == ("algorithm",) and isinstance(child, str) and not last:
                    child = {"type" if ":" in child else "preset": child}
            elif isinstance(node, list) and isinstance(key, int) and key <= len(node):
                child = node[key] if key < len(node) else None
                if key == len(node):
                    node.append(None)
            else:
                raise BadOverride(f"{place}: {_not_inside(keys[:depth], node)}, so it has no {key!r}")
            child = value if last else {} if child is None else child
            node[key] = child
            node = child


def _moved(places: dict[KeyPath, Any], former: KeyPath, key: KeyPath) -> dict[KeyPath, Any]:
    """Places of values, after the one at ``former`` has replaced the one at ``key``."""
    kept = {path: place for path, place in places.items() if path[: len(key)] != key}
    end = len(former)
    return {(*key, *path[end:]) if path[:end] == former else path: place for path, place in kept.items()}


def _not_inside(path: KeyPath, node: Any) -> str:
    """Why nothing can be set below ``node``."""
    name = dotted(path) or "the configuration"
    if isinstance(node, list):
        return f"{name} is a list with positions 0 to {len(node) - 1}" if node else f"{name} is an empty list"
    return f"{name} is a mapping" if isinstance(node, dict) else f"{name} is {node!r}"


def read_source(path: str | Path, overrides: Iterable[str] = ()) -> ConfigSource:
    """Read a YAML file and apply ``a.b=value`` overrides.

    Raises:
        UserError: the file cannot be read, is not YAML, has a key twice, is not a mapping, or an override is malformed.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFound(f"{path}: no such file{_similar_file(file)}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a UTF-8 text file"
        raise Unreadable(f"{path}: cannot be read: {reason}") from error
    source = parse_source(text, str(path))
    for assignment in overrides:
        source.override(assignment)
    return source


def parse_source(text: str, name: str) -> ConfigSource:
    """Parse YAML ``text``; ``name`` stands for the file in messages.

    Raises:
        UserError: not YAML, a key given twice, or not a mapping.
    """
    lines: dict[KeyPath, int] = {}
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        if node is None:
            return ConfigSource(name, {}, {})
        if not isinstance(node, yaml.MappingNode):
            raise NotYaml(f"{name}:1: must be a mapping of keys to values, such as 'seed: 0'")
        # Before the values are made, which forgets the lines and lets the second of two equal keys win.
        _record_lines(node, (), lines, name)
        data = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise NotYaml(f"{name}{line}: not valid YAML: {_problem(error)}") from error
    except yaml.YAMLError as error:
        raise NotYaml(f"{name}: not valid YAML: {_problem(error)}") from error
    return ConfigSource(name, data, lines)


def _record_lines(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], name: str) -> None:
    """Note the line of every key and list item below ``node``; refuse a key that is given twice or is not a name."""
    if len(path) > _MAX_DEPTH:
        raise NotYaml(f"{name}:{node.start_mark.line + 1}: nested more than {_MAX_DEPTH} deep")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.tag not in _KEY_TAGS:
                shown = f" (got {key.value})" if isinstance(key, yaml.ScalarNode) else ""
                raise NotYaml(f"{name}:{line}: a key must be a name{shown}")
            below = (*path, key.value)
            if below in lines:
                first = lines[below]
                raise GivenTwice(
                    f"{name}:{line}: {dotted(below)}: given twice, first on line {first}; keep one of them"
                )
            lines[below] = line
            _record_lines(value, below, lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            _record_lines(item, (*path, index), lines, name)
    elif isinstance(node, yaml.ScalarNode):
        refuse_trap(node, f"{name}:{node.start_mark.line + 1}: {dotted(path)}")


def _problem(error: yaml.YAMLError) -> str:
    """PyYAML's message on one line."""
    if isinstance(error, yaml.MarkedYAMLError):
        return "; ".join(part for part in (error.context, error.problem) if part)
    return " ".join(str(error).split())


def _similar_file(file: Path) -> str:
    """A hint at a file of a similar name in the same folder."""
    if not file.parent.is_dir():
        return f" (nor is there a folder {str(file.parent)!r})"
    names = sorted(other.name for other in file.parent.glob("*.y*ml"))
    close = difflib.get_close_matches(file.name, names, n=1, cutoff=0.5)
    return f"; did you mean {str(file.parent / close[0])!r}?" if close else ""
