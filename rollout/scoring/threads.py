"""Runs blocking code in threads that can be given up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any


class RewardThreads:
    """One daemon thread a call. A thread cannot be ended: one whose caller has given up runs on and is counted."""

    def __init__(self) -> None:
        self._given_up: set[threading.Thread] = set()

    @property
    def num_given_up(self) -> int:
        """Threads that still run although nobody waits for them."""
        self._given_up = {thread for thread in self._given_up if thread.is_alive()}
        return len(self._given_up)

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What ``function(*arguments)`` returns or raises, without blocking the event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def deliver(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        def work() -> None:
            result: Any = None
            error: BaseException | None = None
            try:
                result = function(*arguments)
            except StopIteration as stopped:  # a future refuses this one
                error = RuntimeError(f"StopIteration: {stopped}")
            except BaseException as raised:
                error = raised
            with suppress(RuntimeError):  # the loop is closed: nobody is interested any more
                loop.call_soon_threadsafe(deliver, result, error)

        # A daemon, so that a call that hangs cannot keep the process from ending; and a thread a call, because a pool
        # would fill with those that hang.
        thread = threading.Thread(target=work, name="reward", daemon=True)
        thread.start()
        try:
            return await future
        except asyncio.CancelledError:
            self._given_up.add(thread)
            raise
