"""The driver's side of the preloaded process."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cluster.preload import stand_in
from cluster.preload.forker import FIRST, MODULES
from cluster.preload.stand_in import is_forked


class Preload:
    """A process that loads what workers need while everything else starts, and is forked for each of them.

    Args:
        folder: where its socket and its log are made; the path may have 90 characters.
        environment: added to this process's; what libraries read of it as they are loaded holds for all workers.
        modules: what is loaded; by default :data:`cluster.preload.forker.MODULES`, after
            :data:`cluster.preload.forker.FIRST`.
        is_kept: False where it is not known yet whether there will be workers. Then, if this process dies before
            :meth:`keep`, the folder is removed.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], modules: Sequence[str] = (), is_kept: bool = True
    ) -> None:
        loaded = ["", *modules] if modules else [" ".join(FIRST), *MODULES]
        self._path = folder / "preload.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(self._path))
            listener.listen(128)  # from here on requests wait, however long the loading takes
            with (folder / "preload.log").open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "cluster.preload.forker", str(listener.fileno()), *loaded],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    pass_fds=[listener.fileno()],
                    cwd="/",
                    env={**os.environ, **environment},
                    start_new_session=True,
                )
        if is_kept:
            self.keep()

    def keep(self) -> None:
        """Go on, whatever becomes of this process: others will clear up after it."""
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended, and workers start by themselves
            self._process.stdin.write(b"!")
            self._process.stdin.flush()

    def fork(self, command: Sequence[str], stdin: int) -> bool:
        """Have it fork ``command``, a script with arguments, into its own process group; whether it does.

        Args:
            stdin: descriptor of the standard input; the other streams are those of this process.
        """
        return is_forked(str(self._path), list(command), (stdin, 1, 2), is_apart=False, patience_s=None)

    def end(self) -> None:
        """End it at once, and whatever :meth:`fork` has made of it. Not once there are workers."""
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.close()

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
