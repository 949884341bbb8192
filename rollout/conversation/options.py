"""Environments that a configuration names, and what a task makes of them in a rollout worker."""

from __future__ import annotations

import inspect
from typing import Any

from rollout.component import Component, ComponentSpec, build, resolve_class
from rollout.component.mistakes import CannotImport, WrongClass
from rollout.environment import Environment

METHODS = {"reset": True, "step": True, "outcome": False, "close": True}
"""Methods of an environment, and whether they are coroutines."""


def build_environment(spec: ComponentSpec, where: str) -> Environment:
    """A new environment of the class that ``spec`` names; it is a :class:`Component` with the protocol's methods.

    Raises:
        UserError: there is no such class, it is no environment, or an option is wrong.
    """
    # There are no built-in environments, so a bare name is always a mistake.
    if ":" not in spec.type:
        raise CannotImport(f"{where}.type: {spec.type!r} is not of the form 'package.module:Class'")
    require_methods(resolve_class(spec, {}, Component, where), f"{where}.type: {spec.type!r}")
    environment: Environment = build(spec, {}, Component, where)
    return environment


def require_methods(found: Any, what: str) -> None:
    """Raise :class:`UserError` unless ``found``, a class or an object, has the methods of an environment.

    Args:
        what: how the message begins.
    """
    for name, is_async in METHODS.items():
        method = getattr(found, name, None)
        if not callable(method):
            raise WrongClass(
                f"{what} is no environment: it has no method {name!r} (see rollout.environment.Environment)"
            )
        if is_async != inspect.iscoroutinefunction(method):
            raise WrongClass(f"{what} is no environment: {name!r} must {'' if is_async else 'not '}be 'async def'")
