"""Where the actors of a run live, and what they are doing when nothing moves."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

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

    def _add(self, name: str, node_id: str, host: str, pid: int) -> None:
        self._places[name] = (node_id, pid)
        self._status.set_worker(name, pid, host)

    async def dump_stacks(self) -> list[str]:
        """Have every process write its stacks; returns where they are."""
        return await stack_dump.dump(self._places, self._stacks, self._here, collect_stacks)


def introduce(_: Any, name: str, stacks: str) -> tuple[str, str, int]:
    """Run inside an actor: make it write its stacks when asked. Returns node, host and process id."""
    stack_dump.install(Path(stacks), name)
    return ray.get_runtime_context().get_node_id(), socket.gethostname(), os.getpid()
