"""Runs in a fork of the preloaded process: calls one function there. See :meth:`HeadStart.ask`.

Called as ``answer.py MODULE:FUNCTION [FOLDER ...]``, with the caller's search path.
"""

from __future__ import annotations

import importlib
import os
import pickle
import socket
import sys
from contextlib import suppress

from cluster.config.processes.search_path import import_packages


def main(target: str, search_path: list[str]) -> None:
    """Read a pickled argument from the socket at the standard input, and write what the function gives for it there.

    Nothing is written if it raises something: whoever asked finds that by itself, and tells it with its traceback.
    """
    import_packages()
    sys.path[:] = search_path
    module, _, name = target.partition(":")
    with socket.socket(fileno=os.dup(0)) as caller, caller.makefile("rwb") as stream:
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        with suppress(Exception):
            function = getattr(importlib.import_module(module), name)
            stream.write(pickle.dumps(function(pickle.load(stream))))


if __name__ == "__main__":
    _, _target, *_search_path = sys.argv
    del sys.argv[1:]
    main(_target, _search_path)
