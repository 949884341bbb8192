"""What a private Ray leaves behind: its processes, shared memory and folder. Found by marks, never by program names.

Standard library only: the reaper is to stay small, and to work when everything else is broken.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

MARK = "DVPO_RAY_FOLDER"
"""Environment variable that every process of a private Ray inherits; its value is the Ray's own folder."""
KEEP_SESSIONS = 5
"""Sessions of one run whose logs are kept."""
_SHARED = re.compile(r"(sem\.|psm_|plasma|nccl-|torch_|vllm|__KMP_REGISTERED)")
_SHM = Path("/dev/shm")
_POLL_S = 0.1

Process = tuple[int, int]
"""A process id, and when it started in clock ticks since boot: ids are used again."""


def members(folder: Path) -> list[Process]:
    """Live processes that carry the mark of this folder. A zombie has none, so it does not count.

    A process that has written its title over its environment, as Ray's agents do, has no mark either: it counts if it
    holds a file below the folder open.
    """
    wanted = f"{MARK}={folder}".encode()
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError, ValueError, IndexError):  # it ended meanwhile, or is somebody else's
                environment = Path(entry.path, "environ").read_bytes()
                marked = wanted in environment.split(b"\0")
                if marked or (_is_overwritten(environment) and _has_open(entry.path, folder)):
                    found.append((int(entry.name), started(int(entry.name))))
    return found


def _is_overwritten(environment: bytes) -> bool:
    """Whether a title was written over it: its beginning is no variable, though the end of it may be one still."""
    return b"=" not in environment.partition(b"\0")[0]


def _has_open(process: str, folder: Path) -> bool:
    """Whether a process has a file below ``folder`` open."""
    with os.scandir(os.path.join(process, "fd")) as files:
        for file in files:
            with suppress(OSError):  # closed meanwhile
                if os.readlink(file.path).startswith(f"{folder}/"):
                    return True
    return False


def started(pid: int) -> int:
    """When a process started, in clock ticks since boot.

    Raises:
        OSError: there is no such process, or only its exit status is left.
    """
    # The second field is the program's name in brackets, and may hold blanks and brackets itself.
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    if fields[0] in "ZX":
        raise ProcessLookupError(f"process {pid} has ended")
    return int(fields[19])


class Leftovers:
    """Everything of one private Ray that has to be gone in the end.

    A process is known from the first look that saw its mark until it ends, since one that changes its title may write
    over its environment. Shared memory is known by inode, since a semaphore is mapped under a passing name; only kinds
    of files that Python, Ray, vLLM and NCCL make themselves are removed: one that a user has put there is not touched.

    Args:
        folder: the Ray's own folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: set[Process] = set()
        self._inodes: set[int] = set()

    def look(self) -> None:
        """Remember the live processes, and which files of /dev/shm they have mapped now."""
        for pid, _ in self.processes():
            with suppress(OSError), open(f"/proc/{pid}/maps", errors="replace") as maps:
                # Fields of a line: addresses, rights, offset, device, inode, path.
                self._inodes |= {int(line.split()[4]) for line in maps if "/dev/shm/" in line}

    def processes(self) -> set[Process]:
        """Those that are alive."""
        self._known = {process for process in self._known if _is_alive(process)} | set(members(self._folder))
        return self._known

    def end_processes(self, grace_s: float, timeout_s: float = 30.0) -> int:
        """End all processes; returns how many did not go by themselves.

        They get ``grace_s`` to go, then SIGTERM and 3 s, then SIGKILL. The trackers that remove shared memory when
        their process is gone are the last ones.
        """
        if self._gone(grace_s):
            return 0
        ended = set(self.processes())
        _signal(ended, signal.SIGTERM)
        if not self._gone(3.0):
            ended |= self.processes()
            _signal([process for process in self.processes() if not _is_tracker(process[0])], signal.SIGKILL)
            deadline = time.monotonic() + timeout_s
            # A process that has just been started by one of the others carries the mark too, so look again until none
            # is left.
            while not self._gone(1.0) and time.monotonic() < deadline:
                _signal(self.processes(), signal.SIGKILL)
        return len(ended)

    def remove_shared_memory(self) -> list[str]:
        """Remove the files that the processes had mapped; returns their names."""
        removed = []
        with suppress(OSError):
            for entry in os.scandir(_SHM):
                with suppress(OSError):
                    if _SHARED.match(entry.name) and entry.stat(follow_symlinks=False).st_ino in self._inodes:
                        os.unlink(entry.path)
                        removed.append(entry.name)
        return removed

    def remove_folder(self, timeout_s: float = 5.0) -> None:
        """Delete the folder; tries again while something is still being written into it."""
        deadline = time.monotonic() + timeout_s
        while self._folder.exists() and time.monotonic() < deadline:
            shutil.rmtree(self._folder, ignore_errors=True)
            if self._folder.exists():
                time.sleep(_POLL_S)

    def _gone(self, timeout_s: float) -> bool:
        """Whether two looks in a row find nothing: between them a process could have been starting another."""
        deadline = time.monotonic() + timeout_s
        num_empty = 0
        while num_empty < 2:
            num_empty = 0 if self.processes() else num_empty + 1
            if num_empty == 0 and time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
        return True


def _is_alive(process: Process) -> bool:
    with suppress(OSError, IndexError):
        return started(process[0]) == process[1]
    return False


def _signal(processes: Collection[Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(OSError):
            if _is_alive(process):
                os.kill(process[0], number)


def _is_tracker(pid: int) -> bool:
    with suppress(OSError):
        return b"multiprocessing.resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def keep_logs(folder: Path, run_dir: Path) -> None:
    """Copy what the processes printed to ``run_dir/logs/SESSION``; the oldest sessions beyond a few are deleted.

    Each file begins with the name of its actor. A run that has no folder keeps none.
    """
    with suppress(OSError):  # logs are a help, not a reason to fail
        if not run_dir.is_dir():
            return
        for session in folder.glob("session_[0-9]*"):
            printed = [path for path in sorted((session / "logs").glob("worker-*")) if path.stat().st_size]
            target = run_dir / "logs" / session.name
            for source in printed:
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target / source.name)
        kept = sorted((run_dir / "logs").glob("session_[0-9]*"))
        for old in kept[:-KEEP_SESSIONS]:
            shutil.rmtree(old, ignore_errors=True)
