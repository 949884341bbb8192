"""Objects of this process and event loop behind the interface of Ray's actor handles.

What the pools, the ranks and the weight routes ask of an actor, ``handle.method.remote(...)``, works here without a
second process: arguments and answers are handed over as they are. A plain ``def`` runs in the event loop, which waits
for it; so calls of one object run in the order in which they were made, as they do in an actor.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from actors.calls.chunks import StoredItem
from rollout.unawaited import forget


class InlineActor:
    """A handle of an object that lives here.

    Args:
        instance: whose methods are called.
    """

    def __init__(self, instance: Any) -> None:
        self._instance = instance

    def __getattr__(self, name: str) -> InlineMethod:
        return InlineMethod(getattr(self._instance, name))


class InlineMethod:
    """A method of an :class:`InlineActor`.

    Args:
        function: what is called; may be a coroutine function.
        num_returns: how many references a call gives; with more than one the answer is a tuple of as many parts.
    """

    def __init__(self, function: Callable[..., Any], num_returns: int = 1) -> None:
        self._function, self._num_returns = function, num_returns

    def options(self, *, num_returns: int = 1, concurrency_group: str | None = None) -> InlineMethod:
        """The method with other options. Groups of concurrency are about threads of an actor, and there are none."""
        return InlineMethod(self._function, num_returns)

    def remote(self, *arguments: Any, **keywords: Any) -> Any:
        """Begin a call; returns a reference of the answer, or as many as ``num_returns`` says."""
        task = asyncio.get_running_loop().create_task(self._call(arguments, keywords))
        task.add_done_callback(forget)
        if self._num_returns == 1:
            return task
        return tuple(StoredItem(task, index) for index in range(self._num_returns))

    async def _call(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        # As in Ray: a reference among the arguments is replaced by what it refers to.
        found = [await value if isinstance(value, asyncio.Future | StoredItem) else value for value in arguments]
        answer = self._function(*found, **keywords)
        return await answer if inspect.isawaitable(answer) else answer
