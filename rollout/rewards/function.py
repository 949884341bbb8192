"""A plain function as a reward: ``type: "my_module:my_function"``."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import ConfigDict, ValidationError

from rollout.component import (
    ComponentSpec,
    UserError,
    build,
    describe_validation_error,
    import_object,
    nearest,
    user_code,
)
from rollout.component.mistakes import UnknownKey, WrongClass
from rollout.rewards import REWARDS
from rollout.rewards.base import Reward
from rollout.trajectory import Prompt, Trajectory


class FunctionReward(Reward):
    """Calls ``function(prompt, trajectory, **options)``.

    Args:
        config: options of every reward; further ones are the function's.
        function: returns a float. An ``async def`` runs on the event loop, a plain ``def`` in a thread.
    """

    class Config(Reward.Config):
        """Options every reward has, and those of the function."""

        model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    config: FunctionReward.Config

    def __init__(self, config: FunctionReward.Config, function: Callable[..., float | Awaitable[float]]) -> None:
        super().__init__(config)
        self._function = function
        self._options: dict[str, Any] = dict(config.model_extra or {})

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self._function)

    def __call__(self, prompt: Prompt, trajectory: Trajectory) -> float | Awaitable[float]:
        return self._function(prompt, trajectory, **self._options)


def build_reward(spec: ComponentSpec, where: str) -> Reward:
    """The reward that ``spec`` names: a built-in one, a class, or a function.

    Args:
        where: the place in the configuration, for messages.

    Raises:
        UserError: there is no such reward, or an option is wrong; the message names the option's path.
    """
    found = import_object(spec.type, f"{where}.type") if ":" in spec.type else None
    if not inspect.isroutine(found):
        reward: Reward = build(spec, REWARDS, Reward, where)
        return reward
    try:
        config = FunctionReward.Config.model_validate(spec.options)
    except ValidationError as error:
        raise UserError(describe_validation_error(error, FunctionReward.Config, where)) from error
    _check_signature(found, spec.type, dict(config.model_extra or {}), where)
    return FunctionReward(config, found)


def _check_signature(function: Callable[..., Any], name: str, options: dict[str, Any], where: str) -> None:
    """Raise :class:`UserError` unless ``function`` takes a prompt, a trajectory and the options."""
    doing = f"while the parameters of {name!r} were looked at"  # functions of C may not tell them
    signature = user_code(f"{where}.type", doing, lambda: inspect.signature(function))
    parameters = signature.parameters
    variable = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    known = [key for key, parameter in parameters.items() if parameter.kind not in variable][2:]
    for key in options:
        if key not in known and not takes_any:
            fields = [*known, *FunctionReward.Config.model_fields]
            raise UnknownKey(f"{where}.{key}: unknown key; {nearest(key, fields)}")
    try:
        signature.bind(None, None, **options)
    except TypeError as error:
        called = f"{name.partition(':')[2]}(prompt, trajectory, **options)"
        raise WrongClass(f"{where}.type: {name!r} cannot be called as {called}: {error}") from error
