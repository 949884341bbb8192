"""Stack dumps of live processes: each actor writes where all its threads are when it gets SIGUSR1.

The signal is handled in C, so it works while an actor is blocked in native code or in an endless Python loop.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

_GROW_TIMEOUT_S = 5.0
_QUIET_S = 0.2
"""A dump is complete when its file has not grown for this long."""
_file: IO[str] | None = None

Send = Callable[[str, str, int, str], Awaitable[str]]
"""``(node, name, pid, folder)``: call :func:`collect` with the last three on another node, and return what it does."""


def install(folder: Path, name: str) -> Path:
    """Make this process write its stacks to ``folder/NAME-PID.txt`` on SIGUSR1; returns that path.

    To be called once in each actor's process, by its main or any other thread. The empty files of processes of the
    same name that are gone are removed.

    Raises:
        OSError: the file cannot be made.
    """
    global _file
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(f"{name}-*.txt"):
        with suppress(OSError):
            if path.stem[len(name) + 1 :].isdigit() and path.stat().st_size == 0:
                path.unlink()
    path = _dump_path(folder, name, os.getpid())
    file = path.open("a", encoding="utf-8")
    faulthandler.register(signal.SIGUSR1, file=file, all_threads=True, chain=False)
    _file = file  # faulthandler keeps only its descriptor
    return path


def collect(name: str, pid: int, folder: str) -> str:
    """Have a process of this machine write its stacks, and wait for it; returns the new text.

    Its child processes, such as a vLLM engine, are described by what the kernel knows of them.

    Raises:
        OSError: the process is gone, or does not write dumps (a signal would end it).
        TimeoutError: nothing was written in 5 s; a process that is stopped does not handle signals.
    """
    if not _catches(pid, signal.SIGUSR1):
        raise OSError(f"process {pid} has no handler for stack dumps")
    path = _dump_path(Path(folder), name, pid)
    begin = path.stat().st_size
    os.kill(pid, signal.SIGUSR1)
    deadline, size, grown_at = time.monotonic() + _GROW_TIMEOUT_S, begin, time.monotonic()
    while size == begin or time.monotonic() - grown_at < _QUIET_S:
        if size == begin and time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} wrote nothing in {_GROW_TIMEOUT_S:g} s ({_state(pid)})")
        time.sleep(0.02)
        if (new := path.stat().st_size) != size:
            size, grown_at = new, time.monotonic()
    with path.open("a+", encoding="utf-8", errors="replace") as file:
        file.writelines(f"child process {child}: {_state(child)}\n" for child in _children(pid))
        file.seek(begin)
        return file.read()


async def dump(workers: Mapping[str, tuple[str, int]], folder: Path, here: str, send: Send) -> list[str]:
    """Stack dumps of several actors, side by side.

    Args:
        workers: node and process id by name.
        folder: where :func:`install` was told to write.
        here: the node of this process; others are reached by ``send``.
        send: see :data:`Send`.

    Returns:
        A line ``NAME: PATH`` for each worker, or the reason why there is none.
    """

    async def one(name: str, node: str, pid: int) -> str:
        path = _dump_path(folder, name, pid)
        try:
            if node == here:
                text = await asyncio.to_thread(collect, name, pid, str(folder))
            else:
                text = await send(node, name, pid, str(folder))
            if not path.exists():  # the folder is not shared with that node
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        except Exception as error:  # ``send`` goes to another node, which may be gone; the other dumps still count
            return f"{name}: no stack dump: {str(error) or type(error).__name__}"
        return f"{name}: {path}"

    return list(await asyncio.gather(*(one(name, node, pid) for name, (node, pid) in workers.items())))


def collect_here(folder: Path) -> list[str]:
    """Stack dumps of every process of this machine that writes to ``folder``, for who cannot ask the controller.

    Returns:
        Lines as of :func:`dump`.
    """
    lines = []
    for path in sorted(folder.glob("*-*.txt")):
        name, _, pid = path.stem.rpartition("-")
        if pid.isdigit() and _has_open(int(pid), path):
            try:
                collect(name, int(pid), str(folder))
                lines.append(f"{name}: {path}")
            except OSError as error:  # TimeoutError is one
                lines.append(f"{name}: no stack dump: {error}")
    return lines


def _dump_path(folder: Path, name: str, pid: int) -> Path:
    return folder / f"{name}-{pid}.txt"


def _status(pid: int) -> dict[str, str]:
    """What /proc/PID/status says, by key."""
    lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _catches(pid: int, number: signal.Signals) -> bool:
    return bool(int(_status(pid)["SigCgt"], 16) >> (number - 1) & 1)


def _has_open(pid: int, path: Path) -> bool:
    """Whether a process has a file open: its id alone may belong to another process by now."""
    with suppress(OSError):
        return any(os.path.samefile(link, path) for link in Path(f"/proc/{pid}/fd").iterdir() if link.exists())
    return False


def _state(pid: int) -> str:
    """A process in one line, from the kernel: it needs no help from the process."""
    try:
        status = _status(pid)
        waits_in = Path(f"/proc/{pid}/wchan").read_text().strip("0\n")
    except OSError:
        return "gone"
    waiting = f", waits in {waits_in}" if waits_in else ""
    return f"{status['Name']}, {status['State']}, {status['Threads']} threads, {status.get('VmRSS', '0 kB')}{waiting}"


def _children(pid: int) -> list[int]:
    """All descendants of a process."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with suppress(OSError):
            found += [int(child) for child in (task / "children").read_text().split()]
    return [descendant for child in found for descendant in (child, *_children(child))]
