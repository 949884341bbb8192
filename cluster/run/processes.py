"""Where the actors of a run live, and what they are doing when nothing moves."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray

from actors.ledger.errors import LedgerError
from actors.loop.records import Records
from actors.pools.members import PoolObserver
from actors.processes import stack_dump
from actors.recording.run_status import RunStatus
from cluster.run.workers import collect_stacks

ANSWER_S = 30.0


class Processes:
    """Registers actors in the run's status, and asks all of them for their stacks.

    Args:
        status: what people read.
        stacks: folder of stack dumps.
    """

    def __init__(self, status: RunStatus, stacks: Path) -> None:
        self._status, self._stacks = status, stacks
        self._places: dict[str, tuple[str, int]] = {}
        self._here, host, pid = introduce(None, "controller", str(stacks))
        self._add("controller", self._here, host, pid)

    async def register(self, handles: Mapping[str, Any]) -> None:
        """Learn where the actors live; one that does not answer now is left out."""

        async def one(name: str, handle: Any) -> None:
            answer = handle.__ray_call__.remote(introduce, name, str(self._stacks))
            try:
                self._add(name, *await asyncio.wait_for(answer, ANSWER_S))
            except Exception as error:  # it is being lost; whoever calls it next will say so
                self._status.note(name, f"does not answer: {type(error).__name__}")

        await asyncio.gather(*(one(name, handle) for name, handle in handles.items()))

    def forget(self, name: str) -> None:
        """An actor has ended: its process id may become somebody else's."""
        self._places.pop(name, None)
        self._status.forget(name)

    def _add(self, name: str, node_id: str, host: str, pid: int) -> None:
        self._places[name] = (node_id, pid)
        self._status.set_worker(name, pid, host)

    async def dump_stacks(self) -> list[str]:
        """Have every process write its stacks; returns where they are."""
        return await stack_dump.dump(self._places, self._stacks, self._here, collect_stacks)


class FleetObserver(PoolObserver):
    """Writes down what happens to workers and requests."""

    def __init__(self) -> None:
        self._registering: set[asyncio.Task[None]] = set()

    def follow(self, records: Records, processes: Processes) -> None:
        """From now on write down here.

        Args:
            records: where.
            processes: get to know the workers that come in the place of others.
        """
        self._ledger, self._tell, self._status = records.ledger, records.tell, records.status
        self._processes = processes

    def worker_event(self, worker: str, text: str) -> None:
        """See :class:`actors.pools.members.PoolObserver`."""
        self._status.note(worker, text)
        self._tell("worker", self._status.step, f"{worker} {text}", "warning", worker=worker)

    def worker_joined(self, worker: str) -> None:
        """See :class:`actors.pools.members.PoolObserver`."""
        self._tell("worker", self._status.step, f"{worker} has joined", worker=worker)

    def worker_left(self, worker: str) -> None:
        """See :class:`actors.pools.members.PoolObserver`."""
        self._processes.forget(worker)
        self._tell("worker", self._status.step, f"{worker} has left", worker=worker)

    def worker_started(self, worker: str, handle: Any) -> None:
        """See :class:`actors.pools.members.PoolObserver`."""
        task = asyncio.get_running_loop().create_task(self._processes.register({worker: handle}))
        self._registering.add(task)  # the event loop itself would let go of it
        task.add_done_callback(self._registering.discard)

    def request_reissued(self, trajectory_id: str, cause: str) -> None:
        """See :class:`actors.pools.members.PoolObserver`."""
        with suppress(LedgerError):  # a full disk costs one count here; whatever changes a state waits for space
            self._ledger.reissue(trajectory_id, cause)

    def prompt_quarantined(self, prompt_id: str, reason: str) -> None:
        """See :class:`actors.pools.members.PoolObserver`."""
        text = f"prompt {prompt_id} is set aside: {reason}"
        self._tell("quarantine", self._status.step, text, "warning", prompt_id=prompt_id)


def introduce(_: Any, name: str, stacks: str) -> tuple[str, str, int]:
    """Run inside an actor: make it write its stacks when asked. Returns node, host and process id."""
    stack_dump.install(Path(stacks), name)
    return ray.get_runtime_context().get_node_id(), socket.gethostname(), os.getpid()
