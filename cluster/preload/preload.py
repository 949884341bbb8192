"""The driver's side of the preloaded process."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cluster.preload import stand_in


class Preload:
    """A process that loads what workers need while everything else starts, and is forked for each of them.

    Args:
        folder: where its socket and its log are made; the path may have 90 characters.
        environment: added to this process's; what libraries read of it as they are loaded holds for all workers.
        modules: what is loaded; by default :data:`cluster.preload.forker.MODULES`.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], modules: Sequence[str] = ()) -> None:
        self._path = folder / "preload.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(self._path))
            listener.listen(128)  # from here on requests wait, however long the loading takes
            with (folder / "preload.log").open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "cluster.preload.forker", str(listener.fileno()), *modules],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    pass_fds=[listener.fileno()],
                    cwd="/",
                    env={**os.environ, **environment},
                    start_new_session=True,
                )

    @property
    def executable(self) -> str:
        """What Ray runs in the place of ``python``: ``runtime_env["py_executable"]``."""
        return shlex.join([sys.executable, "-S", "-E", stand_in.__file__, str(self._path)])

    def close(self) -> None:
        """Fork no more; workers that live go on."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        self._path.unlink(missing_ok=True)
