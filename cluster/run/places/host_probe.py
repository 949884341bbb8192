"""What one host is looked at for before models are loaded on it. Runs on that host; needs neither torch nor Ray."""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

CONNECT_S = 5.0
"""Longest wait for a connection to another host, in seconds."""
HEAD_BYTES = 1 << 20
"""Of each file of a model that its digest reads, beside its name and size: weights may be hundreds of GB."""
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What each host needs.

    Attributes:
        run_dir: the run's folder, which all hosts share.
        token: a word that the driver has left in it.
        models: folders of models.
        components: ``module:Class`` of the user's.
    """

    run_dir: str
    token: str
    models: tuple[str, ...] = ()
    components: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What was found on one host.

    Attributes:
        host, address: its name, and the address by which Ray knows it.
        clock: seconds since 1970, by its clock.
        shared_memory_mib, disk_mib: free in ``/dev/shm`` and in the run's folder; 0 without one.
        digests: of the models' folders; empty for one that is not there.
        problems: what is wrong on this host itself, in words.
    """

    host: str
    address: str
    clock: float
    shared_memory_mib: int = 0
    disk_mib: int = 0
    digests: tuple[str, ...] = ()
    problems: tuple[str, ...] = field(default=())


class HostProbe:
    """Looks at the host that it runs on.

    Args:
        address: by which Ray knows this host.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._listener: socket.socket | None = None

    def look(self, wanted: Wanted) -> HostFacts:
        """See :class:`HostFacts`."""
        problems = [*_folder_problems(Path(wanted.run_dir), wanted.token), *_import_problems(wanted.components)]
        return HostFacts(
            host=socket.gethostname(),
            address=self._address,
            clock=time.time(),
            shared_memory_mib=_free_mib(SHARED_MEMORY),
            disk_mib=_free_mib(Path(wanted.run_dir)),
            digests=tuple(folder_digest(Path(path)) for path in wanted.models),
            problems=tuple(problems),
        )

    def listen(self) -> int:
        """Open a port on the interface of Ray's address, where the learner ranks will talk too; returns it, or 0."""
        try:
            self._listener = socket.create_server((self._address, 0))
        except OSError:
            return 0
        return int(self._listener.getsockname()[1])

    def connect(self, addresses: Sequence[tuple[str, int]]) -> list[str]:
        """Try every one of these; says which cannot be reached."""
        problems = []
        for address, port in addresses:
            try:
                with socket.create_connection((address, port), timeout=CONNECT_S):
                    pass
            except OSError as error:
                problems.append(f"it cannot reach {address}: {error}")
        return problems

    def close(self) -> None:
        """Close the port."""
        if self._listener is not None:
            self._listener.close()


def mark_of(run_dir: Path, token: str) -> Path:
    """The file that the driver leaves in the run's folder."""
    return run_dir / f".preflight-{token}"


def folder_digest(folder: Path) -> str:
    """A word for what a model's folder holds: names, sizes, and the beginning of each file. Empty without a folder."""
    if not folder.is_dir():
        return ""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file():
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                digest.update(file.read(HEAD_BYTES))
    return digest.hexdigest()[:16]


def _folder_problems(run_dir: Path, token: str) -> list[str]:
    """Whether the run's folder is the driver's, and can be written to."""
    if not mark_of(run_dir, token).is_file():
        return [f"output_dir: {run_dir} is not the driver's folder there; it must be on storage that all hosts share"]
    own = mark_of(run_dir, f"{token}-{socket.gethostname()}-{os.getpid()}")
    try:
        own.write_text(token, encoding="utf-8")
        read = own.read_text(encoding="utf-8")
        own.unlink()
    except OSError as error:
        return [f"output_dir: {run_dir} cannot be written to there: {error.strerror}"]
    return [] if read == token else [f"output_dir: {run_dir} does not hold there what was just written to it"]


def _import_problems(components: Sequence[str]) -> list[str]:
    problems = []
    for component in components:
        module, _, name = component.partition(":")
        try:
            getattr(importlib.import_module(module), name)
        except (Exception, SystemExit) as error:  # a user's module may raise anything
            problems.append(f"{component} cannot be imported there: {type(error).__name__}: {error}")
    return problems


def _free_mib(path: Path) -> int:
    try:
        return shutil.disk_usage(path).free >> 20
    except OSError:
        return 0
