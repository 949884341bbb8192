"""From a name in a YAML file to an object, in whichever process asks.

A pluggable class (algorithm, reward, noise model, task) has a nested pydantic ``Config`` and takes an instance of it
as its one constructor argument. In YAML it is named by ``type``: a built-in name or ``package.module:Class``. Nothing
is registered anywhere, so nothing has to be shared between processes.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class UserError(Exception):
    """A mistake in what the user gave us. Shown as one message, without a traceback; the process exits with 2."""


class StrictModel(BaseModel):
    """Base of every configuration model: unknown keys are errors, values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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
        raise UserError(f"{where}: {path!r} is not of the form 'package.module:Name'")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may raise anything while it is imported
        raise UserError(
            f"{where}: cannot import module {module_name!r}: {type(error).__name__}: {error}. "
            "The module must be importable from the directory the run is started in."
        ) from error
    if not hasattr(module, attribute):
        public = [name for name in vars(module) if not name.startswith("_")]
        raise UserError(f"{where}: module {module_name!r} has no {attribute!r}; {nearest(attribute, public)}")
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
        raise UserError(
            f"{where}.type: unknown name {spec.type!r}; {nearest(spec.type, builtins)}, or 'package.module:Class'"
        )
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"{where}.type: {spec.type!r} is not a subclass of {base.__module__}.{base.__qualname__}")
    return found


def build(spec: ComponentSpec, builtins: Mapping[str, str], base: type, where: str) -> Any:
    """Validate the options of a component and construct it.

    Raises:
        UserError: the class cannot be found or an option is wrong; the message names the option's path.
    """
    found = resolve_class(spec, builtins, base, where)
    try:
        config = found.Config.model_validate(spec.options)
    except ValidationError as error:
        raise UserError(describe_validation_error(error, found.Config, where)) from error
    return found(config)


def describe_validation_error(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """One line for each problem that pydantic found: path, what is wrong, what would be right."""
    lines = []
    for problem in error.errors(include_url=False):
        location = [str(part) for part in problem["loc"]]
        path = ".".join(p for p in [where, *location] if p)
        if problem["type"] == "extra_forbidden":
            fields = _fields_at(model, location[:-1])
            hint = f"; {nearest(location[-1], fields)}" if fields else ""
            lines.append(f"{path}: unknown key{hint}")
        elif problem["type"] == "missing":
            lines.append(f"{path}: required but not given")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            given = problem.get("input")
            shown = f" (got {given!r})" if isinstance(given, str | int | float | bool | type(None)) else ""
            lines.append(f"{path}: {message}{shown}")
    return "\n".join(lines)


def _fields_at(model: type[BaseModel], location: list[str]) -> list[str]:
    """Names of the fields of the (nested) model that ``location`` leads to, or [] if it leads elsewhere."""
    current: Any = model
    for part in location:
        if not (isinstance(current, type) and issubclass(current, BaseModel)) or part not in current.model_fields:
            return []
        current = current.model_fields[part].annotation
    is_model = isinstance(current, type) and issubclass(current, BaseModel)
    return list(current.model_fields) if is_model else []


__all__ = [
    "Component",
    "ComponentSpec",
    "StrictModel",
    "UserError",
    "build",
    "describe_validation_error",
    "import_object",
    "nearest",
    "resolve_class",
]
