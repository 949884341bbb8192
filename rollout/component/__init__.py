"""From a name in a YAML file to an object, in whichever process asks.

A pluggable class (algorithm, reward, noise model, task) has a nested pydantic ``Config`` and takes an instance of it
as its one constructor argument. In YAML it is named by ``type``: a built-in name or ``package.module:Class``. Nothing
is registered anywhere, so nothing has to be shared between processes.
"""

from __future__ import annotations

import difflib
import importlib
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from rollout.component.errors import UserError, coded, user_code
from rollout.component.kinds import code_of
from rollout.component.mistakes import CannotImport, UnknownName, WrongClass
from rollout.component.paths import PathText, expand_path
from rollout.component.strict_model import StrictModel

KeyPath = tuple[str | int, ...]
"""Keys and list positions that lead to a value of a configuration, outermost first."""


class Component:
    """Base of every pluggable class."""

    class Config(StrictModel):
        """Options of the component."""

    def __init__(self, config: Any) -> None:
        self.config = config


class ComponentSpec(BaseModel):
    """A component as written in YAML: its ``type`` and the options of that type."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str = Field(description="Built-in name, or 'package.module:Class' of a class that can be imported.")

    @property
    def options(self) -> dict[str, Any]:
        """Everything but ``type``."""
        return dict(self.model_extra or {})


def nearest(name: str, candidates: Mapping[str, Any] | list[str]) -> str:
    """A hint such as ``did you mean 'dvpo'? valid: dvpo, grpo, ppo``."""
    valid = sorted(candidates)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}valid: {', '.join(valid)}"


def import_object(path: str, where: str) -> Any:
    """Import ``package.module:Name``.

    Raises:
        UserError: the path is malformed, the module cannot be imported, or it has no such name.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise CannotImport(f"{where}: {path!r} is not of the form 'package.module:Name'")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module may raise anything while it is imported
        raise CannotImport(
            f"{where}: cannot import module {module_name!r}: {type(error).__name__}: {error}. "
            "The module must be importable from the directory the run is started in."
        ) from error
    if not hasattr(module, attribute):
        public = [name for name in vars(module) if not name.startswith("_")]
        raise CannotImport(f"{where}: module {module_name!r} has no {attribute!r}; {nearest(attribute, public)}")
    return getattr(module, attribute)


def resolve_class(spec: ComponentSpec, builtins: Mapping[str, str], base: type, where: str) -> type[Any]:
    """The class that ``spec.type`` names.

    Args:
        builtins: built-in name -> ``module:Class``.
        base: the class must be a subclass of this one.
        where: the place in the configuration, for messages.

    Raises:
        UserError: no such class, or not a subclass of ``base``.
    """
    # By import and not by a registry, so that a process that has never heard of the class finds it too.
    if ":" in spec.type:
        found = import_object(spec.type, f"{where}.type")
    elif spec.type in builtins:
        found = import_object(builtins[spec.type], f"{where}.type")
    else:
        raise UnknownName(
            f"{where}.type: unknown name {spec.type!r}; {nearest(spec.type, builtins)}, or 'package.module:Class'"
        )
    if not (isinstance(found, type) and issubclass(found, base)):
        raise WrongClass(f"{where}.type: {spec.type!r} is not a subclass of {base.__module__}.{base.__qualname__}")
    return found


def build(spec: ComponentSpec, builtins: Mapping[str, str], base: type, where: str) -> Any:
    """Validate the options of a component and construct it.

    Raises:
        UserError: the class cannot be found, an option is wrong, or validators or the constructor raise; the message
            begins with the option's path.
    """
    found = resolve_class(spec, builtins, base, where)
    return user_code(where, f"while {spec.type!r} was made", lambda: _made(found, spec.options, where))


def _made(found: type[Any], options: dict[str, Any], where: str) -> Any:
    try:
        config = found.Config.model_validate(options)
    except ValidationError as error:
        raise UserError(describe_validation_error(error, found.Config, where)) from error
    try:
        return found(config)
    except UserError as error:  # the component itself may not know where it stands
        if _names_a_place(str(error), where):
            raise
        raise UserError(f"{where}: {error}") from error


def _names_a_place(message: str, where: str) -> bool:
    """Whether a message begins with a key of the section that ``where`` is in."""
    section = where.partition(".")[0]
    return message.startswith((f"{section}.", f"{section}:"))


def describe_validation_error(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """One line for each key with something wrong: its path, what is wrong, what would be right.

    Args:
        where: path of what was validated, which the paths begin with; may be empty.
    """
    problems = validation_problems(error, model, where)
    return "\n".join(f"{dotted(path)}: {message}" if path else message for path, message in problems)


def validation_problems(error: ValidationError, model: type[BaseModel], where: str = "") -> list[tuple[KeyPath, str]]:
    """What pydantic found wrong, in words a user can act on and with its code, by the key that it is about.

    A validator that knows better which keys are wrong raises a ``PydanticCustomError`` of type ``cross_field`` whose
    context has ``problems``: pairs of a path and a message.

    Args:
        model: what was validated; it says what a key is for, and what keys there are.
        where: path of what was validated, which the paths begin with.
    """
    base: KeyPath = tuple(where.split(".")) if where else ()
    messages: dict[KeyPath, list[str]] = {}
    codes: dict[KeyPath, str] = {}
    for problem in error.errors(include_url=False):
        if problem["type"] == "cross_field":
            for path, message in problem["ctx"]["problems"]:
                messages.setdefault((*base, *path), []).append(message)
                codes.setdefault((*base, *path), code_of("cross_field"))
            continue
        path, field = _follow(model, problem["loc"])
        messages.setdefault((*base, *path), []).append(_explain(problem, model, path, field, base))
        codes.setdefault((*base, *path), code_of(problem["type"]))
    return [(path, coded(_join(found), codes[path])) for path, found in messages.items()]


def dotted(path: KeyPath) -> str:
    """``reward.functions.0``."""
    return ".".join(map(str, path))


def _join(messages: list[str]) -> str:
    """Messages about one key; those of a union's branches are alternatives that end in the same remark."""
    if len(messages) == 1:
        return messages[0]
    remark = messages[0].partition(" (got ")[2]
    if remark and all(message.partition(" (got ")[2] == remark for message in messages):
        return " or ".join(message.partition(" (got ")[0] for message in messages) + " (got " + remark
    return "; ".join(messages)


def _explain(problem: Any, model: type[BaseModel], path: KeyPath, field: FieldInfo | None, base: KeyPath) -> str:
    """One problem: what is wrong and what would be right."""
    kind = problem["type"]
    about = f" [{field.description}]" if field is not None and field.description else ""
    if kind == "extra_forbidden":
        return _unknown_key(model, path, base)
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


def _unknown_key(model: type[BaseModel], path: KeyPath, base: KeyPath) -> str:
    """A hint for a key that does not exist here: the nearest one, or where a key of this name does exist."""
    key = str(path[-1])
    elsewhere = [found for found in _paths_of(model, key) if found != path]
    if elsewhere:
        return f"unknown key; there is {' and '.join(repr(dotted((*base, *found))) for found in elsewhere)}"
    section = _model_at(model, path[:-1])
    if section is None:
        return "unknown key"
    names = list(section.model_fields)
    longer = [repr(name) for name in names if name.endswith(f"_{key}")]
    if longer:
        return f"unknown key; did you mean {' or '.join(longer)}? valid: {', '.join(sorted(names))}"
    return f"unknown key; {nearest(key, names)}"


def _follow(model: type[BaseModel], loc: Sequence[str | int]) -> tuple[KeyPath, FieldInfo | None]:
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


def _model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """The section that ``path`` leads to."""
    current: type[BaseModel] = model
    for part in path:
        field = current.model_fields.get(str(part))
        below = [found for found in _classes(field.annotation) if issubclass(found, BaseModel)] if field else []
        if not below:
            return None
        current = below[0]
    return current


def _paths_of(
    model: type[BaseModel], key: str, above: tuple[str, ...] = (), inside: tuple[type[BaseModel], ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Every place in the tree of sections that has a key of this name."""
    for name, field in model.model_fields.items():
        if name == key:
            yield (*above, name)
        for below in _classes(field.annotation):
            # A class of the user's may hold others of its own kind: each is entered once on the way down.
            if issubclass(below, BaseModel) and not issubclass(below, (ComponentSpec, model, *inside)):
                yield from _paths_of(below, key, (*above, name), (*inside, model))


__all__ = [
    "Component",
    "ComponentSpec",
    "KeyPath",
    "PathText",
    "StrictModel",
    "UserError",
    "build",
    "describe_validation_error",
    "dotted",
    "expand_path",
    "import_object",
    "nearest",
    "resolve_class",
    "user_code",
    "validation_problems",
]
