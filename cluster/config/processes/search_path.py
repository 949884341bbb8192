"""Where modules are found, in this process and in the workers: what one can import, the others can.

The four packages have common names. They are imported by name before the user's folder is searched for anything, so
that a ``learner.py`` of the user's takes the place of none of them. After them comes the folder that the command is
started in, then ``PYTHONPATH``, then what is installed.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

PACKAGES = ("rollout", "learner", "actors", "cluster")
ROOT = str(Path(__file__).resolve().parents[3])


def import_packages() -> None:
    """Settle which packages the four names mean, for the rest of this process.

    Called by the command line before it imports anything else of theirs, and by Ray in each worker as it starts, before
    the driver's folder is put in front of the worker's path.
    """
    sys.path.insert(0, ROOT)
    try:
        for name in PACKAGES:
            importlib.import_module(name)
    finally:
        sys.path.remove(ROOT)


def add_working_folder() -> None:
    """Make the user's own modules importable from where the command is started."""
    here = os.getcwd()
    if here in sys.path:
        sys.path.remove(here)
    sys.path.insert(0, here)


def prepare_process() -> None:
    """What a command does first: the user's modules can be imported from here, and libraries are quiet."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    add_working_folder()


def workers_path() -> str:
    """``PYTHONPATH`` of workers: they may start in another folder, so every entry is absolute."""
    inherited = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    return os.pathsep.join(dict.fromkeys([ROOT, os.getcwd(), *map(os.path.abspath, inherited)]))
