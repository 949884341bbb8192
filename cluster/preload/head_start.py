"""What a run needs in any case, begun while it is still being checked whether there will be a run."""

from __future__ import annotations

import os
import pickle
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.cleanup.leftovers import MARK
from cluster.preload import answer
from cluster.preload.preload import Preload


class HeadStart:
    """The folder of a private Ray that may come, and in it the preloaded process, which loads meanwhile.

    A context manager: what was not taken is gone at its end, the process first. If this process is killed before, the
    preloaded one removes the folder as it ends by itself.

    Args:
        environment: of the preloaded process, see :class:`Preload`; None where workers are started by themselves.
    """

    def __init__(self, environment: Mapping[str, str] | None) -> None:
        # Not TMPDIR: the path of a socket in it may have 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="dvpo-ray-", dir=os.environ.get("RAY_TMPDIR", "/tmp"))).resolve()
        (self.folder / "tmp").mkdir()
        self.preload: Preload | None = None
        self._is_taken = False
        if environment is not None:
            own = {MARK: str(self.folder), "TMPDIR": str(self.folder / "tmp")}
            self.preload = Preload(self.folder, {**environment, **own}, is_kept=False)

    def __enter__(self) -> HeadStart:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_taken:
            return
        if self.preload is not None:
            self.preload.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def take(self) -> None:
        """From here on the caller ends it, and a reaper does if this process is killed."""
        self._is_taken = True
        if self.preload is not None:
            self.preload.keep()

    def ask(self, target: str, question: Any) -> Any | None:
        """What the function ``target`` (``MODULE:FUNCTION``) gives for ``question`` in a fork of the preloaded process.

        It is forked once what comes first has been loaded, and searches modules where this process does.

        Returns:
            The answer; None if there is none, for whatever reason: then the caller has to find it out by itself.
        """
        ours, theirs = socket.socketpair()
        with ours, ours.makefile("rwb") as stream:
            with theirs:
                is_asked = self.preload is not None and self.preload.fork(
                    [answer.__file__, target, *sys.path], theirs.fileno()
                )
            if not is_asked:
                return None
            with suppress(OSError, EOFError, pickle.UnpicklingError):  # it has ended
                pickle.dump(question, stream)
                stream.flush()
                return pickle.load(stream)
        return None
