"""The preloaded process: loads what every worker needs, then forks a worker for each request.

It may be started before it is known whether there will be workers: then it forks who asks in the middle of the loading,
which is the check of the run's configuration, and is told when it is kept. One that nobody kept leaves nothing behind.

What a fork has of its parent is memory that is not copied until it is written to: modules, and no threads, no sockets
and no random numbers, since nothing but importing is done here. It ends with the pipe that the driver holds.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

FIRST = (
    "torch",
    "transformers.modeling_layers",
    "transformers.models.auto.modeling_auto",
    "cluster.config.prompts",
    "cluster.config.components",
)
"""Loaded before all others, and before those who asked until then are forked: what the check of a run needs."""
MODULES = (
    "vllm.engine.arg_utils",
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.core.sched.scheduler",
    "vllm.v1.engine.input_processor",
    "vllm.v1.engine.output_processor",
    "deepspeed",
    "learner.update.learner",
    "rollout.conversation.runner",
    "rollout.scoring.service",
)
"""Loaded before the first worker is forked; a worker loads what is missing. Not Ray, nor what imports it: a process
that has it is bound to the environment variables that it found, and each worker has its own."""


class Forker:
    """What the process does, from its first module to its end.

    Args:
        listener: where requests are made.
        driver: descriptor of a pipe whose end is the driver's; what comes through it says that the process is kept.
    """

    def __init__(self, listener: socket.socket, driver: int) -> None:
        self._listener, self._driver = listener, driver
        self._is_kept = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(driver, selectors.EVENT_READ)
        self._selector.register(listener, selectors.EVENT_READ)

    def run(self, first: Sequence[str], modules: Sequence[str]) -> None:
        """Load modules, then serve until the driver closes its pipe, or is gone."""
        gc.disable()  # loading leaves little to collect, and looking for it takes a quarter of the time
        try:
            _load(first)
            for name in modules:
                # Workers ask once this process is kept, and wait until all is loaded; who asks before needs no more.
                if not self._listens() or not (self._is_kept or not first or self._serves_early()):
                    return
                _load([name])
            gc.freeze()  # a collection in a worker does not touch, and so copy, what was loaded here
            while _may_fork() and self._serve(timeout_s=None):
                pass
        finally:
            self._selector.close()

    def _listens(self) -> bool:
        """Whether the driver still wants something of this process; says nothing of requests."""
        while select.select([self._driver], [], [], 0.0)[0]:
            if not os.read(self._driver, 1):
                if not self._is_kept:
                    _leave_nothing(Path(self._listener.getsockname()))
                return False
            self._is_kept = True
        return True

    def _serves_early(self) -> bool:
        return _may_fork() and self._serve(timeout_s=0.0)

    def _serve(self, timeout_s: float | None) -> bool:
        """Fork who asks now, or within the time; whether the driver still wants something."""
        for key, _ in self._selector.select(timeout_s):
            if key.fd == self._driver:
                if not self._listens():
                    return False
            elif key.data is not None:  # a worker has ended
                self._selector.unregister(key.fd)
                os.close(key.fd)
                os.waitpid(key.data, 0)
            elif request := _accepted(self._listener):
                pid = _fork(*request, (self._selector, self._listener))
                self._selector.register(os.pidfd_open(pid), selectors.EVENT_READ, data=pid)
        return True


def _load(names: Iterable[str]) -> None:
    for name in names:
        # A worker that needs it will fail with its own message; one that does not goes without it.
        with suppress(Exception):
            importlib.import_module(name)


def _may_fork() -> bool:
    """Not with Ray, or a fork would be bound to this process; nor with threads, for whose locks it would wait."""
    return "ray" not in sys.modules and len(os.listdir("/proc/self/task")) == 1


def _leave_nothing(path: Path) -> None:
    """End what was forked, and remove the socket's folder: whoever made it is gone, and nobody else knows of it."""
    shutil.rmtree(path.parent, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


def _fork(request: dict[str, Any], streams: list[int], own: Iterable[socket.socket | selectors.BaseSelector]) -> int:
    """Process id of a new worker, which has nothing of what is this process's ``own``."""
    pid = os.fork()
    if pid == 0:
        for thing in own:
            thing.close()
        _become(request, streams)
    for descriptor in streams:
        os.close(descriptor)
    return pid


def _accepted(listener: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next request, and its standard streams; None if whoever made it waits no longer."""
    channel, _ = listener.accept()
    descriptors: list[int] = []
    with channel, suppress(OSError, ValueError):
        channel.settimeout(1.0)
        head, descriptors, _, _ = socket.recv_fds(channel, 4, 3)
        with channel.makefile("rb") as stream:
            request: dict[str, Any] = json.loads(stream.read(int.from_bytes(head, "big")))
            channel.sendall(b"?")
            if stream.read(1) == b"!":
                return request, descriptors
    for descriptor in descriptors:
        os.close(descriptor)
    return None


def _become(request: dict[str, Any], streams: list[int]) -> None:
    """Be the worker that was asked for, in a process that was just forked. Does not return."""
    status = 1
    try:
        if request["is_apart"]:  # Ray ends the group of a worker that is gone, and with it whatever that had started
            os.setpgid(0, 0)
        for target, descriptor in enumerate(streams):
            os.dup2(descriptor, target)
            os.close(descriptor)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        _follow_environment()
        gc.enable()
        sys.argv = request["command"]
        sys.path[0] = str(Path(sys.argv[0]).parent)
        runpy.run_path(sys.argv[0], run_name="__main__")
        status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        _leave(status)


def _follow_environment() -> None:
    """What the interpreter and the loaded libraries had read from the environment before it was this worker's."""
    folders = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[1:1] = [folder for folder in folders if folder not in sys.path]
    tempfile.tempdir = None  # looked up anew: what is left in a worker's own folder is cleared up
    torch = sys.modules.get("torch")
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if torch is not None and threads.isdigit():
        torch.set_num_threads(max(1, int(threads)))
    dynamo = sys.modules.get("torch._dynamo.config")
    if dynamo is not None:
        dynamo.disable = os.environ.get("TORCHDYNAMO_DISABLE") == "1"  # type: ignore[attr-defined]
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def _leave(status: int) -> None:
    """End like an interpreter that was started for this: exit handlers, then threads, then nothing of the parent's."""
    with suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
    with suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as _listener:
        first, *modules = sys.argv[2:]
        Forker(_listener, sys.stdin.fileno()).run(first.split(), modules)
