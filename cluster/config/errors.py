"""What pydantic found wrong with a configuration, in words a user can act on."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from cluster.config.yaml_source import ConfigSource
from rollout.component import ComponentSpec, nearest


def describe(error: ValidationError, model: type[BaseModel], source: ConfigSource) -> str:
    """One line for each thing that is wrong: where it was written, its key, what is wrong and what would be right."""
    messages: dict[tuple[str | int, ...], list[str]] = {}
    for problem in error.errors(include_url=False):
        if problem["type"] == "cross_field":
            for path, message in problem["ctx"]["problems"]:
                messages.setdefault(tuple(path), []).append(message)
            continue
        path, field = _follow(model, problem["loc"])
        messages.setdefault(path, []).append(_explain(problem, model, path, field))
    lines = []
    for path, found in messages.items():
        dotted = ".".join(map(str, path))
        lines.append(f"{source.place(path)}: {dotted + ': ' if dotted else ''}{_join(found)}")
    return "\n".join(lines)


def _join(messages: list[str]) -> str:
    """Messages about one key; those of a union's branches are alternatives that end in the same remark."""
    if len(messages) == 1:
        return messages[0]
    remark = messages[0].partition(" (got ")[2]
    if remark and all(message.partition(" (got ")[2] == remark for message in messages):
        return " or ".join(message.partition(" (got ")[0] for message in messages) + " (got " + remark
    return "; ".join(messages)


def _explain(problem: Any, model: type[BaseModel], path: tuple[str | int, ...], field: FieldInfo | None) -> str:
    """One problem: what is wrong and what would be right."""
    kind = problem["type"]
    about = f" [{field.description}]" if field is not None and field.description else ""
    if kind == "extra_forbidden":
        return _unknown_key(model, path)
    if kind == "missing":
        return f"required but not given{about}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        is_component = field is not None and ComponentSpec in _classes(field.annotation)
        example = ", such as {type: NAME, option: value}" if is_component else ""
        return f"must be a mapping{example} (got {problem['input']!r}){about}"
    message = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    message = message.replace("a valid tuple", "a list")
    if kind == "string_pattern_mismatch":
        message = "does not have the right form"
    given = problem.get("input")
    is_scalar = given is None or isinstance(given, str | int | float)
    return f"{message}{f' (got {given!r})' if is_scalar else ''}{about}"


def _unknown_key(model: type[BaseModel], path: tuple[str | int, ...]) -> str:
    """A hint for a key that does not exist here: the nearest one, or where a key of this name does exist."""
    key = str(path[-1])
    elsewhere = [".".join(found) for found in _paths_of(model, key) if found != path]
    if elsewhere:
        return f"unknown key; there is {' and '.join(repr(place) for place in elsewhere)}"
    section = _model_at(model, path[:-1])
    if section is None:
        return "unknown key"
    names = list(section.model_fields)
    longer = [repr(name) for name in names if name.endswith(f"_{key}")]
    if longer:
        return f"unknown key; did you mean {' or '.join(longer)}? valid: {', '.join(sorted(names))}"
    return f"unknown key; {nearest(key, names)}"


def _follow(model: type[BaseModel], loc: Sequence[str | int]) -> tuple[tuple[str | int, ...], FieldInfo | None]:
    """The part of pydantic's location that is a path in the file (it also names branches of unions), and its field."""
    current: Any = model
    field: FieldInfo | None = None
    for depth, part in enumerate(loc):
        models = [found for found in _classes(current) if issubclass(found, BaseModel)]
        if isinstance(part, int):
            items = [argument for argument in get_args(current) if argument is not Ellipsis]
            current = items[0] if items else None
        elif models and part in models[0].model_fields:
            field = models[0].model_fields[part]
            current = field.annotation
        elif models:  # a key that the section does not have
            return tuple(loc[: depth + 1]), None
        else:  # the name of a branch of a union
            return tuple(loc[:depth]), field
    return tuple(loc), field


def _classes(annotation: Any) -> list[type[Any]]:
    """The classes in an annotation: itself, or the members of a union or the items of a tuple."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, tuple):
        return [found for argument in get_args(annotation) for found in _classes(argument)]
    return []


def _model_at(model: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel] | None:
    """The section that ``path`` leads to."""
    current: type[BaseModel] = model
    for part in path:
        field = current.model_fields.get(str(part))
        below = [found for found in _classes(field.annotation) if issubclass(found, BaseModel)] if field else []
        if not below:
            return None
        current = below[0]
    return current


def _paths_of(model: type[BaseModel], key: str, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every place in the tree of sections that has a key of this name."""
    for name, field in model.model_fields.items():
        if name == key:
            yield (*above, name)
        for below in _classes(field.annotation):
            if issubclass(below, BaseModel) and not issubclass(below, ComponentSpec):
                yield from _paths_of(below, key, (*above, name))
