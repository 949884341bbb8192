"""Calls of one environment. Whatever it does wrong becomes one kind of error, with a line that says what."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
from collections.abc import Sequence
from typing import Any

from rollout.environment import Environment, Observation
from rollout.rewards.errors import one_line
from rollout.trajectory import Message, Outcome, Prompt

log = logging.getLogger(__name__)

METRIC_NAME = re.compile(r"[\w.-]+(/[\w.-]+)*")


class EnvironmentFailure(Exception):
    """An environment raised, took too long, or answered what it may not. Its trajectory is dropped."""


class EnvironmentCalls:
    """One environment, each of whose calls ends in time with a valid answer, or fails.

    Args:
        environment: the user's.
        timeout_s: longest time of one call.
    """

    def __init__(self, environment: Environment, timeout_s: float) -> None:
        self._environment = environment
        self._timeout_s = timeout_s

    async def reset(self, prompt: Prompt, seed: int) -> tuple[Message, ...]:
        """See :meth:`rollout.environment.Environment.reset`.

        Raises:
            EnvironmentFailure: for all methods.
        """
        return _messages("reset", await self._timed("reset", prompt, seed))

    async def step(self, response: str) -> Observation:
        """See :meth:`rollout.environment.Environment.step`."""
        found = await self._timed("step", response)
        if not isinstance(found, Observation):
            raise EnvironmentFailure(f"step returned {found!r:.100}, which is not an Observation")
        messages = _messages("step", found.messages)
        # The policy would be asked to continue its own finished turn.
        if not messages and not found.done:
            raise EnvironmentFailure("step returned no message, and the conversation is not done")
        return Observation(messages, bool(found.done))

    def outcome(self) -> Outcome:
        """See :meth:`rollout.environment.Environment.outcome`."""
        try:
            found = self._environment.outcome()
        except Exception as error:  # the user's code
            raise EnvironmentFailure(f"outcome: {one_line(error)}") from error
        if not isinstance(found, Outcome):
            raise EnvironmentFailure(f"outcome returned {found!r:.100}, which is not an Outcome")
        for name, value in found.metrics.items():
            if not isinstance(name, str) or not METRIC_NAME.fullmatch(name):
                raise EnvironmentFailure(
                    f"outcome: {name!r} is no name of a metric: letters, digits, '_', '-', '.', '/'"
                )
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise EnvironmentFailure(f"outcome: metric {name!r} is {value!r:.100}, which is not a finite number")
        try:
            # Here and not where they are written: the log of a whole step must not fail by one environment.
            json.dumps(found.facts)
        except (TypeError, ValueError) as error:
            raise EnvironmentFailure(f"outcome: its facts cannot be written as JSON: {error}") from error
        return Outcome({name: float(value) for name, value in found.metrics.items()}, found.facts)

    async def close(self) -> None:
        """See :meth:`rollout.environment.Environment.close`. What goes wrong is logged: the trajectory is whole."""
        try:
            await self._timed("close")
        except EnvironmentFailure as failure:
            log.warning("an environment was not closed in order: %s", failure)

    async def _timed(self, name: str, *arguments: Any) -> Any:
        task = asyncio.ensure_future(self._contained(name, *arguments))
        try:
            done, _ = await asyncio.wait({task}, timeout=self._timeout_s)
        finally:
            task.cancel()  # not waited for: it may refuse to be cancelled
            task.add_done_callback(_forget)
        if not done:
            raise EnvironmentFailure(f"{name} gave no answer within {self._timeout_s:g} s")
        if task.cancelled():
            raise EnvironmentFailure(f"{name} cancelled itself")
        error = task.exception()
        if error is not None:
            raise EnvironmentFailure(f"{name}: {one_line(error)}") from error
        return task.result()

    async def _contained(self, name: str, *arguments: Any) -> Any:
        try:
            return await getattr(self._environment, name)(*arguments)
        except (SystemExit, KeyboardInterrupt) as stop:  # would end the whole worker
            raise RuntimeError(f"{type(stop).__name__}({stop})") from None


def _forget(task: asyncio.Task[Any]) -> None:
    """Look at the exception of a call that nobody waits for, so that asyncio does not report it."""
    if not task.cancelled():
        task.exception()


def _messages(name: str, found: Any) -> tuple[Message, ...]:
    """What an environment says, if it is messages."""
    if isinstance(found, str) or not isinstance(found, Sequence):
        raise EnvironmentFailure(f"{name} returned {found!r:.100}, which is no sequence of messages")
    for message in found:
        texts = [message.get(key) for key in ("role", "content")] if isinstance(message, dict) else [None]
        if not all(isinstance(text, str) for text in texts):
            raise EnvironmentFailure(f"{name} returned {message!r:.100}, which is not {{'role': ..., 'content': ...}}")
    return tuple({"role": message["role"], "content": message["content"]} for message in found)
