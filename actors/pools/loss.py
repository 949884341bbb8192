"""The one place that awaits an actor, and that tells the loss of a worker from an error that the worker reports."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import (
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from actors.calls.messages import CallFailedError, UnknownError
from actors.faults import ControllerLost, DataLost, Fault, HostLost, Unreachable, WorkerDied, WorkerError, WorkerHung
from rollout.component import UserError
from rollout.component.errors import mistake_in

DEATHS = (RayActorError, WorkerCrashedError, NodeDiedError, OutOfMemoryError)
"""What Ray says of an actor whose process is gone."""
HOST_GONE = "because its node has died"
"""How Ray says of an actor that the host went with it."""
ENGINE_DEAD = "EngineDeadError"
"""The exception of an engine that has ended: vLLM's, which is not imported here, or ``rollout.sampling.engine``'s."""
OUT_OF_MEMORY_ADVICE = "lower learner.micro_batch_tokens, rollout.kv_cache_mib or the number of workers"


async def reply(awaited: Awaitable[Any], worker: str, method: str, timeout_s: float | None = None) -> Any:
    """What an actor answers.

    Args:
        awaited: reference of the answer, or a coroutine that awaits such.
        worker, method: who was asked to do what, for messages.
        timeout_s: longest time until the answer, in seconds. None: as long as it takes.

    Raises:
        WorkerLost: the worker died or did not answer in time.
        DataLost: it is well, but what it needed or answered is lost.
        WorkerError: it reported an error.
        UserError: it reported a mistake of the user's, or could not be made because of one.
    """
    try:
        # Not asyncio.wait_for: in Python 3.11 that swallows a cancellation which comes together with the answer, and
        # it runs what is awaited in a task of its own, so that others come between its last line and the next one here.
        async with asyncio.timeout(timeout_s):
            return await awaited
    except (RayError, CallFailedError, TimeoutError) as error:
        raise failure(worker, method, error, timeout_s) from error


def failure(worker: str, method: str, error: BaseException, timeout_s: float | None = None) -> Exception:
    """What to raise for an error that came back from an actor: the root cause in one line, without Ray's wrapping."""
    cause = unwrapped(error)
    if isinstance(cause, UserError):
        return UserError(str(cause))
    if cause is error and isinstance(error, Fault):
        return error  # it has been told already
    if isinstance(cause, RayActorError) and cause.actor_init_failed:
        mistake = mistake_in(describe_death(cause))  # Ray keeps the text of what a constructor raised
        if mistake is not None:
            return UserError(mistake)
    if isinstance(cause, DEATHS):
        return _death(cause)(worker, method, describe_death(cause))
    name = cause.type_name if isinstance(cause, UnknownError) else type(cause).__name__
    if name == ENGINE_DEAD:
        return WorkerDied(worker, method, f"{ENGINE_DEAD}: {cause}")
    if isinstance(cause, ObjectLostError):
        return DataLost(worker, method, f"data it needs were lost with another process: {cause}")
    if cause is error and isinstance(error, TimeoutError):  # a worker's own TimeoutError is one that it reports
        return WorkerHung(worker, method, f"no answer within {timeout_s:g} s" if timeout_s else "no answer in time")
    return WorkerError(worker, method, f"{name}: {cause}")


def unwrapped(error: BaseException) -> BaseException:
    """What was raised inside an actor, without the wrappers of the way here; the error itself if it has none."""
    while isinstance(error, RayTaskError | CallFailedError) and error.cause is not None:
        error = error.cause
    return error


def _death(error: BaseException) -> type[WorkerDied]:
    if isinstance(error, NodeDiedError) or HOST_GONE in str(error):
        return HostLost
    return Unreachable if isinstance(error, ActorUnavailableError) else WorkerDied


def controller_fault(error: BaseException) -> BaseException:
    """What went wrong in the controller, by what its actor has answered; or that its process is gone."""
    cause = unwrapped(error)
    return ControllerLost(f"lost the controller: {describe_death(cause)}") if isinstance(cause, DEATHS) else cause


def describe_death(error: BaseException) -> str:
    """Why an actor's process is gone, on one line. Of one whose constructor raised: what that raised."""
    text = str(error)
    if isinstance(error, OutOfMemoryError):
        facts = " ".join(line for line in text.splitlines() if line.startswith("Memory on the node"))
        return f"its process was ended because memory ran out; {OUT_OF_MEMORY_ADVICE}. {facts.partition('; ')[0]}"
    if isinstance(error, RayActorError) and error.actor_init_failed:
        return _raised(text) or "its constructor failed"
    return f"its process died: {_one_line(text)}"


def end(handle: Any) -> None:
    """End an actor's process, whatever it is doing."""
    with suppress(Exception):  # it may be gone already, in one of several ways
        ray.kill(handle, no_restart=True)


def _raised(text: str) -> str:
    """The exception at the end of a traceback: what comes after the lines of the last frame, its first line first."""
    lines = text.splitlines()
    last_frame = max((i for i, line in enumerate(lines) if line.startswith('  File "')), default=0)
    raised = [i for i in range(last_frame + 1, len(lines)) if lines[i].strip() and not lines[i].startswith(" ")]
    text = _one_line("\n".join(lines[raised[0] :]))[:500] if raised else ""
    return re.sub(r"^(\w+\.)+(?=\w+:)", "", text)  # the class without its module


def _one_line(text: str) -> str:
    return " ".join(text.split())
