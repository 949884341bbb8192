"""What a command leaves on the machine: processes, ports, shared memory, temporary files."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from cluster.cleanup.leftovers import MARK, members
from tests.integration.whole_runs import Command, StartCommand

LEFT_WITHIN_S = 20.0


@dataclass
class Trace:
    """What a run has on the machine, seen from outside while it runs."""

    command: Command
    temporary: Path
    folder: Path | None = None
    ports: set[int] = field(default_factory=set)
    shared: set[int] = field(default_factory=set)

    def note(self) -> None:
        """Look at what the processes have now."""
        self.command.note_processes()
        for process in list(self.command.seen.values()):
            with suppress(psutil.Error, OSError):
                if MARK in (environment := process.environ()):
                    self.folder = Path(environment[MARK])
                listening = [c for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
                self.ports |= {connection.laddr.port for connection in listening}
                for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
                    if "/dev/shm/" in line:
                        self.shared.add(int(line.split()[4]))

    def note_until(self, text: str) -> None:
        """Wait until something has been printed, and look."""
        self.command.wait_for(text, 400.0)
        self.note()

    def note_until_started(self, num_processes: int) -> None:
        """Look until Ray has started some processes, long before everything is ready."""
        deadline = time.monotonic() + 60.0
        while len(self.command.seen) < num_processes or self.folder is None:
            assert time.monotonic() < deadline, self.command.output
            self.note()
            time.sleep(0.2)

    def assert_nothing_left(self) -> None:
        """Within 20 s of the command's end."""
        assert self.folder is not None
        assert self.command.survivors(LEFT_WITHIN_S) == []
        deadline = time.monotonic() + LEFT_WITHIN_S
        while left := self.left():
            assert time.monotonic() < deadline, left
            time.sleep(0.2)

    def left(self) -> list[str]:
        """What is still there."""
        assert self.folder is not None
        left = [f"process {pid}" for pid, _ in members(self.folder)]
        left += [str(self.folder)] * self.folder.exists()
        left += [str(path) for path in self.temporary.iterdir()]
        left += [entry.path for entry in os.scandir("/dev/shm") if entry.stat().st_ino in self.shared]
        return left + [f"port {port}" for port in self.ports if _accepts(port)]


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


Begin = Callable[..., Trace]


@pytest.fixture
def begin(tmp_path: Path, start_command: StartCommand) -> Begin:
    """Start a command whose own temporary files go to an empty folder."""

    def begin(*arguments: str, **environment: str) -> Trace:
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        return Trace(start_command(*arguments, TMPDIR=str(temporary), **environment), temporary)

    return begin
