"""The preloaded process: loads what every worker needs, then forks a worker for each request.

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
import selectors
import socket
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

MODULES = (
    "torch",
    "vllm.engine.arg_utils",
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.core.sched.scheduler",
    "vllm.v1.engine.input_processor",
    "vllm.v1.engine.output_processor",
    "deepspeed",
    "transformers.models.auto.modeling_auto",
    "learner.update.learner",
    "rollout.conversation.runner",
    "rollout.scoring.service",
)
"""Loaded before the first worker is forked; a worker loads what is missing. Not Ray, nor what imports it: a process
that has it is bound to the environment variables that it found, and each worker has its own."""


def main(listener: socket.socket, modules: Sequence[str] = MODULES) -> None:
    """Load ``modules``, then fork a worker for each request, until the pipe at the standard input closes."""
    for name in modules:
        # A worker that needs it will fail with its own message; one that does not goes without it.
        with suppress(Exception):
            importlib.import_module(name)
    if "ray" in sys.modules or len(os.listdir("/proc/self/task")) > 1:
        return  # a fork would be bound to this process, or wait for a lock that a thread of this one holds
    gc.collect()
    gc.freeze()  # a collection in a worker does not touch, and so copy, what was loaded here
    driver = sys.stdin.fileno()
    with selectors.DefaultSelector() as selector:
        selector.register(driver, selectors.EVENT_READ)
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == driver:
                    return  # it has closed the pipe, or is gone
                if key.data is not None:  # a worker has ended
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    os.waitpid(key.data, 0)
                elif request := _accepted(listener):
                    pid = _fork(*request, (selector, listener))
                    selector.register(os.pidfd_open(pid), selectors.EVENT_READ, data=pid)


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
        os.setpgid(0, 0)  # Ray ends the group of a worker that is gone, and with it whatever that had started
        for target, descriptor in enumerate(streams):
            os.dup2(descriptor, target)
            os.close(descriptor)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update(request["environment"])
        _follow_environment()
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
        main(_listener, sys.argv[2:] or MODULES)
