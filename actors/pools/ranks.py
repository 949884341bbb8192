"""Several Ray actors called as one: fan out, gather in order, one deadline, and the name of the one that failed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from actors.faults import WorkerDied, WorkerHung
from actors.pools.loss import end, reply
from rollout.unawaited import forget


class Ranks:
    """Named Ray actors of one class.

    The first failure ends the call at once: with ranks that wait for each other the remaining ones would never answer.
    The group is then not usable any more and should be killed.
    """

    def __init__(self, actors: Sequence[Any], name: str) -> None:
        """Take over actor handles; they are called NAME-0, NAME-1, ... in messages."""
        if not actors:
            raise ValueError("a worker group needs at least one actor")
        self.actors = list(actors)
        self.names = [f"{name}-{i}" for i in range(len(self.actors))]

    def __len__(self) -> int:
        return len(self.actors)

    def start(self, method: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Call a method of every actor and return the references of the results, in the order of the actors."""
        return [getattr(actor, method).remote(*args, **kwargs) for actor in self.actors]

    async def gather(self, references: Sequence[Any], method: str, *, timeout_s: float) -> list[Any]:
        """Wait for what :meth:`start` returned.

        Args:
            method: what was called, for messages.
            timeout_s: longest time until the last one has answered, in seconds.

        Raises:
            WorkerError: one failed, died or did not answer in time.
            UserError: one reported a mistake of the user's.
        """
        named = zip(references, self.names, strict=True)
        tasks = [asyncio.ensure_future(reply(reference, name, method)) for reference, name in named]
        for task in tasks:
            task.add_done_callback(forget)  # the first failure is told; those that follow from it are not
        try:
            done, waiting = await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task in done and (error := task.exception()) is not None:
                    raise error
            if waiting:
                late = ", ".join(name for task, name in zip(tasks, self.names, strict=True) if task in waiting)
                raise WorkerHung(late, method, f"no answer within {timeout_s:g} s")
            return [task.result() for task in tasks]
        finally:
            for task in tasks:
                task.cancel()

    async def call(self, method: str, *args: Any, timeout_s: float, **kwargs: Any) -> list[Any]:
        """Call a method of every actor with the same arguments and wait for the results, in the order of the actors.

        Put large arguments into the object store first, so that they are shared. Errors as in :meth:`gather`.
        """
        return await self.gather(self.start(method, *args, **kwargs), method, timeout_s=timeout_s)

    async def dead(self, timeout_s: float) -> list[str]:
        """Names of the actors that are known to have died, looked for up to ``timeout_s`` seconds."""
        named = zip(self.actors, self.names, strict=True)
        probes = (reply(actor.rss.remote(), name, "rss", timeout_s) for actor, name in named)
        answers = await asyncio.gather(*probes, return_exceptions=True)
        return [answer.worker for answer in answers if isinstance(answer, WorkerDied)]

    def kill(self) -> None:
        """End every actor's process, whatever it is doing."""
        for actor in self.actors:
            end(actor)
