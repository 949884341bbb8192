"""Changes of the ledger that are made at the same time, as one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from actors.ledger.errors import LedgerError
from actors.ledger.ledger import Ledger
from actors.recording.disk_space import DiskSpace

Change = Callable[[], None]
"""Changes the ledger by one of its methods."""


class LedgerWriter:
    """What a change costs is mostly that of its transaction, so those of one round of the event loop share one.

    Changes are made in the order in which they were asked for. If one is refused, all of its transaction are made anew,
    each by itself, and only that one fails.

    Who wakes whom: the first change of a round starts a task, which runs when the round is over, makes all that have
    been asked for by then, and wakes those who wait.

    Args:
        ledger: that the changes are made of.
        disk: waits while it is full; those who wait for a change wait as long.
    """

    def __init__(self, ledger: Ledger, disk: DiskSpace) -> None:
        self._ledger, self._disk = ledger, disk
        self._asked: list[tuple[Change, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, change: Change) -> None:
        """Make a change, which survives the end of this process when this returns.

        Raises:
            LedgerError: it was refused.
            UserError: the disk was full for too long.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._asked.append((change, done))
        if self._writing is None or self._writing.done():
            self._writing = loop.create_task(self._write_all())
        await done

    async def _write_all(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, []
            errors = await self._make([change for change, _ in asked])
            for (_, done), error in zip(asked, errors, strict=True):
                if done.done():  # nobody waits any more
                    continue
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)

    async def _make(self, changes: Sequence[Change]) -> list[Exception | None]:
        """What each change raised."""
        if len(changes) > 1:
            error = await self._try(lambda: self._ledger.together(changes))
            if not isinstance(error, LedgerError):  # none, or one that is not about a single change
                return [error] * len(changes)
        return [await self._try(change) for change in changes]

    async def _try(self, change: Change) -> Exception | None:
        try:
            await self._disk.write(change, "the ledger")
        except Exception as error:  # whoever asked for it is to hear it
            return error
        return None
