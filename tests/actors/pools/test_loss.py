"""What is a loss and what a report, on Ray's own exceptions, and on real actors that die in several ways."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from actors.faults import DataLost, HostLost, Recoverable, Unreachable, WorkerDied, WorkerError, WorkerHung, WorkerLost
from actors.pools.loss import reply
from rollout.component import UserError


class EngineDeadError(Exception):
    """Like vLLM's, which is known by its name."""


def in_actor(cause: Exception) -> RayTaskError:
    """What Ray raises for an exception inside an actor: an error that is also one of the cause's class."""
    return RayTaskError("sample", "Traceback ...", cause).as_instanceof_cause()


LOST = ObjectLostError("aa" * 28, None, "")
CONSTRUCTOR = """Traceback (most recent call last):
  File "ray/_raylet.pyx", line 1, in execute
  File "/app/service.py", line 60, in __init__
    reward = build_reward(spec)
  File "/app/my_reward.py", line 3, in <module>
    import nowhere
ModuleNotFoundError: No module named 'nowhere'
  or it is spelt differently"""
MEMORY = """Task was killed due to the node running low on memory.
Memory on the node (IP: 10.0.0.1, ID: ab) where the task (actor ID: cd, name=RolloutWorker) was running was 15.2GB / \
16.0GB (0.95), which exceeds the memory usage threshold of 0.95; more about this in the log.
Top 10 memory users:
"""

CASES: dict[str, tuple[Exception, type[Exception], str]] = {
    "reported": (in_actor(ValueError("odd")), WorkerError, "w failed in m: ValueError: odd"),
    "reported time-out": (in_actor(TimeoutError("of its own")), WorkerError, "w failed in m: TimeoutError: of its own"),
    "user's mistake": (in_actor(UserError("data.path: no such file")), UserError, "data.path: no such file"),
    "died": (RayActorError(error_msg="gone\n\tpid: 7"), WorkerDied, "w failed in m: its process died: gone pid: 7"),
    "crashed": (WorkerCrashedError(), WorkerDied, "w failed in m: its process died: The worker died unexpectedly"),
    "another died": (in_actor(RayActorError(error_msg="x")), WorkerDied, "w failed in m: its process died: x"),
    "constructor": (
        ActorDiedError(RayTaskError("__init__", CONSTRUCTOR, ImportError("nowhere"))),
        WorkerDied,
        "w failed in m: ModuleNotFoundError: No module named 'nowhere' or it is spelt differently",
    ),
    "engine": (in_actor(EngineDeadError("core")), WorkerDied, "w failed in m: EngineDeadError: core"),
    "memory": (
        OutOfMemoryError(MEMORY),
        WorkerDied,
        "w failed in m: its process was ended because memory ran out; lower learner.micro_batch_tokens, rollout."
        "kv_cache_mib or the number of workers. Memory on the node (IP: 10.0.0.1, ID: ab) where the task (actor ID: "
        "cd, name=RolloutWorker) was running was 15.2GB / 16.0GB (0.95), which exceeds the memory usage threshold of "
        "0.95",
    ),
    "host": (NodeDiedError("its host"), HostLost, "w failed in m: its process died: its host"),
    "host, of an actor": (
        RayActorError(error_msg="The actor died because its node has died. Node Id: ab"),
        HostLost,
        "w failed in m: its process died: The actor died because its node has died",
    ),
    "unreachable": (
        ActorUnavailableError("connection reset", None),
        Unreachable,
        "w failed in m: its process died: ",
    ),
    "data": (LOST, DataLost, "w failed in m: data it needs were lost with another process: "),
    "data in the worker": (in_actor(LOST), DataLost, "w failed in m: data it needs were lost with another process: "),
}


@pytest.mark.parametrize(("error", "kind", "text"), CASES.values(), ids=CASES)
async def test_each_error_becomes_one_of_ours(error: Exception, kind: type[Exception], text: str) -> None:
    async def call() -> None:
        raise error

    with pytest.raises(kind) as caught:
        await reply(call(), "w", "m", 5.0)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(text)
    assert caught.value.__cause__ is error
    is_loss = isinstance(caught.value, WorkerLost)
    assert is_loss == issubclass(kind, WorkerDied)
    assert isinstance(caught.value, Recoverable) == (is_loss or kind is DataLost)


async def test_no_answer_is_a_hang() -> None:
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with pytest.raises(WorkerHung, match=r"w failed in m: no answer within 0\.01 s"):
        await reply(never, "w", "m", 0.01)
    assert never.cancelled()


async def test_an_answer_that_comes_with_a_cancellation_does_not_swallow_it() -> None:
    answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(reply(answer, "w", "m", 5.0))
    await asyncio.sleep(0)
    answer.set_result(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_is_not_rays_passes() -> None:
    async def call() -> None:
        raise ValueError("a mistake here, not there")

    with pytest.raises(ValueError, match="a mistake here"):
        await reply(call(), "w", "m")


class Fragile:
    def __init__(self, mistake: str = "") -> None:
        if mistake:
            raise ValueError(mistake)

    async def answer(self, what: Any) -> Any:
        if what == "die":
            os._exit(1)
        if what == "raise":
            raise TimeoutError("its own")
        if what == "sleep":
            await asyncio.sleep(3600)
        return what


@pytest.mark.slow
@pytest.mark.ray
def test_real_actors(ray_local: None) -> None:
    import ray

    actor = ray.remote(Fragile).options(num_cpus=0)
    unborn, mortal = actor.remote("there is no\nsuch reward"), actor.remote()

    async def asked(handle: Any, what: str, timeout_s: float = 60.0) -> str:
        try:
            return str(await reply(handle.answer.remote(what), "w", "m", timeout_s))
        except WorkerError as error:
            return f"{type(error).__name__}: {error.reason}"

    async def story() -> list[str]:
        found = [await asked(unborn, "x")]
        found += [await asked(mortal, "raise"), await asked(mortal, "x"), await asked(mortal, "sleep", 0.5)]
        return [*found, await asked(mortal, "die"), await asked(mortal, "x")]

    found = asyncio.run(story())
    died = [text for text in found if text.startswith("WorkerDied: its process died: ")]
    assert found == [
        "WorkerDied: ValueError: there is no such reward",
        "WorkerError: TimeoutError: its own",
        "x",
        "WorkerHung: no answer within 0.5 s",
        *died,
    ]
    assert len(died) == 2
