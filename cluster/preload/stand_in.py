"""Runs in the place of ``python`` when Ray starts a worker: has the preloaded process fork it, or starts it itself.

Called as ``python -S -E stand_in.py SOCKET SCRIPT [ARGUMENT ...]``. Standard library only, and no import of the
project's: it is to be over in a few milliseconds.
"""

from __future__ import annotations

import json
import os
import socket
import sys

PATIENCE_S = 30.0
"""How long the preloaded process may take to answer. It does not while it is still loading."""


def is_forked(
    path: str,
    command: list[str],
    streams: tuple[int, int, int] = (0, 1, 2),
    is_apart: bool = True,
    patience_s: float | None = PATIENCE_S,
) -> bool:
    """Ask the preloaded process at the socket ``path`` to become ``command``; whether it does.

    Args:
        streams: descriptors of its standard input, output and error.
        is_apart: whether it is to be in a process group of its own, else it is in that of the preloaded process.
        patience_s: how long it may take to answer; None for as long as it lives.
    """
    place = {"folder": os.getcwd(), "environment": dict(os.environ), "is_apart": is_apart}
    request = json.dumps({"command": command, **place}).encode()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(patience_s)
            channel.connect(path)
            socket.send_fds(channel, [len(request).to_bytes(4, "big")], streams)
            channel.sendall(request)
            # Only a request whose sender still waits is answered, so that no worker is started twice.
            if channel.recv(1) != b"?":
                return False
            channel.sendall(b"!")
            return True
    except OSError:
        return False


if __name__ == "__main__":
    _, path, *command = sys.argv
    if not is_forked(path, command):
        os.execv(sys.executable, [sys.executable, *command])
