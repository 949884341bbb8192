"""Several Ray actors called as one: fan out, gather in order, one deadline, and the name of the one that failed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from rollout.component import UserError


class WorkerError(RuntimeError):
    """A worker failed or did not answer in time.

    Attributes:
        worker: its name.
        method: what it was asked to do.
        reason: what went wrong, root cause first.
        is_loss: whether a process was lost (it died, or does not answer), rather than an error reported.
    """

    def __init__(self, worker: str, method: str, reason: str, is_loss: bool = False) -> None:
        super().__init__(worker, method, reason, is_loss)
        self.worker, self.method, self.reason, self.is_loss = worker, method, reason, is_loss

    def __str__(self) -> str:
        return f"{self.worker} failed in {self.method}: {self.reason}"


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
        tasks = [asyncio.ensure_future(_result(reference)) for reference in references]
        try:
            done, waiting = await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_EXCEPTION)
            for task, name in zip(tasks, self.names, strict=True):
                if task in done and (error := task.exception()) is not None:
                    raise failure(name, method, error) from error
            if waiting:
                late = ", ".join(name for task, name in zip(tasks, self.names, strict=True) if task in waiting)
                raise WorkerError(late, method, f"no answer within {timeout_s:g} s", is_loss=True)
            return [task.result() for task in tasks]
        finally:
            for task in tasks:
                task.cancel()

    async def call(self, method: str, *args: Any, timeout_s: float, **kwargs: Any) -> list[Any]:
        """Call a method of every actor with the same arguments and wait for the results, in the order of the actors.

        Put large arguments into the object store first, so that they are shared. Errors as in :meth:`gather`.
        """
        return await self.gather(self.start(method, *args, **kwargs), method, timeout_s=timeout_s)

    async def call_each(self, method: str, arguments: Sequence[tuple[Any, ...]], *, timeout_s: float) -> list[Any]:
        """Like :meth:`call`, with own arguments for each actor."""
        calls = zip(self.actors, arguments, strict=True)
        return await self.gather([getattr(a, method).remote(*args) for a, args in calls], method, timeout_s=timeout_s)

    def call_blocking(self, method: str, *args: Any, timeout_s: float, **kwargs: Any) -> list[Any]:
        """:meth:`call` from code that runs no event loop."""
        return asyncio.run(self.call(method, *args, timeout_s=timeout_s, **kwargs))

    async def dead(self, timeout_s: float) -> list[str]:
        """Names of the actors that are known to have died, looked for up to ``timeout_s`` seconds."""
        probes = [asyncio.ensure_future(_result(actor.rss.remote())) for actor in self.actors]
        done, waiting = await asyncio.wait(probes, timeout=timeout_s)
        for probe in waiting:
            probe.cancel()
        named = zip(probes, self.names, strict=True)
        return [name for probe, name in named if probe in done and isinstance(probe.exception(), RayActorError)]

    def kill(self) -> None:
        """End every actor's process, whatever it is doing."""
        for actor in self.actors:
            ray.kill(actor, no_restart=True)


async def _result(reference: Any) -> Any:
    return await reference


def failure(worker: str, method: str, error: BaseException) -> Exception:
    """What to raise for an error that came back from an actor: the root cause in one line, without Ray's wrapping."""
    cause = error.cause if isinstance(error, RayTaskError) and error.cause is not None else error
    if isinstance(cause, UserError):
        return UserError(str(cause))
    if isinstance(cause, RayActorError):
        return WorkerError(worker, method, f"its process died: {' '.join(str(cause).split())}", is_loss=True)
    if isinstance(cause, ObjectLostError):
        return WorkerError(worker, method, f"data it needs were lost with another process: {cause}", is_loss=True)
    return WorkerError(worker, method, f"{type(cause).__name__}: {cause}")
