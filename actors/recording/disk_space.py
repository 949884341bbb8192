"""A full disk is waited for: whoever runs the machine can make space, and nothing is lost meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from learner.storage.disk_full import is_disk_full
from rollout.component.mistakes import DiskIsFull

T = TypeVar("T")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 10.0


class DiskSpace:
    """Repeats what failed for want of space, with growing pauses.

    Args:
        timeout_s: how long one operation is repeated, in seconds.
        tell: told when waiting begins and when it is over.
        still_waiting: called before each attempt, so that waiting is not taken for being stuck.
    """

    def __init__(
        self, timeout_s: float, tell: Callable[[str], None], still_waiting: Callable[[], None] = lambda: None
    ) -> None:
        self._timeout_s = timeout_s
        self._tell, self._still_waiting = tell, still_waiting
        self._num_waiting = 0

    @property
    def is_waited_for(self) -> bool:
        """Whether something waits for space now."""
        return self._num_waiting > 0

    async def write(self, operation: Callable[[], T], what: str) -> T:
        """Run a function that writes; :meth:`run` for one that returns at once."""

        async def once() -> T:
            return operation()

        return await self.run(once, what)

    async def run(self, operation: Callable[[], Awaitable[T]], what: str) -> T:
        """Run ``operation`` until it does not fail for want of space.

        Args:
            operation: must leave things as they were when it fails.
            what: it does, for messages.

        Raises:
            UserError: there was no space for ``timeout_s``.
            Exception: whatever else ``operation`` raises.
        """
        try:
            return await operation()
        except Exception as error:  # errors of many libraries can say that the disk is full
            if not is_disk_full(error):
                raise
            reason = error
        # Several operations may wait side by side: the first tells that waiting begins, the last that it is over.
        self._num_waiting += 1
        if self._num_waiting == 1:
            self._tell(f"the disk is full ({reason}); training pauses, {what} is tried again for {self._timeout_s:g} s")
        try:
            result = await self._repeat(operation, what)
        finally:
            self._num_waiting -= 1
        if not self._num_waiting:
            self._tell(f"there is space again: {what} done")
        return result

    async def _repeat(self, operation: Callable[[], Awaitable[T]], what: str) -> T:
        now = asyncio.get_running_loop().time
        deadline, pause = now() + self._timeout_s, FIRST_PAUSE_S
        while True:
            await asyncio.sleep(min(pause, max(0.0, deadline - now())))
            pause = min(2 * pause, LONGEST_PAUSE_S)
            self._still_waiting()
            try:
                return await operation()
            except Exception as error:  # as above
                if not is_disk_full(error):
                    raise
                if now() >= deadline:
                    raise DiskIsFull(
                        f"the disk has been full for {self._timeout_s:g} s (recovery.disk_full_timeout_s) and {what} "
                        f"cannot be written: {error}. Make space and go on with --resume; the checkpoints are intact"
                    ) from error
