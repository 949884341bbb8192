"""The files that one rank writes into a checkpoint: each durable and hashed, and a full disk told from other errors."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import torch

from learner.storage.manifest import FileFacts, file_sha256, sync_to_disk, telling_full_disk

_BUFFER_BYTES = 1 << 20


class CheckpointFiles:
    """Writes files into a folder and keeps the facts that the manifest will state of them.

    Every method raises :class:`learner.storage.manifest.DiskFullError` where there is no space. Names are relative to
    the folder; folders above a file are made.

    Args:
        folder: where to write; other ranks may write there too.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts: dict[str, FileFacts] = {}

    def torch_save(self, name: str, value: Any) -> None:
        """Write what ``torch.load`` reads."""
        with self._writing(name) as sink:
            torch.save(value, cast(IO[bytes], sink))  # which calls write() and flush() only

    def text(self, name: str, text: str) -> None:
        """Write text as UTF-8."""
        with self._writing(name) as sink:
            sink.write(text.encode())

    def copy(self, name: str, source: Path) -> None:
        """Copy a file."""
        with self._writing(name) as sink, source.open("rb") as file:
            shutil.copyfileobj(file, sink, _BUFFER_BYTES)

    @contextmanager
    def subfolder(self, name: str) -> Iterator[Path]:
        """A new folder for a library to write into; what it has written is taken up on leaving."""
        folder = self.folder / name
        with telling_full_disk(self.folder):
            folder.mkdir(parents=True)
            yield folder
            for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                sync_to_disk(path)
                facts: FileFacts = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
                self.facts[path.relative_to(self.folder).as_posix()] = facts

    @contextmanager
    def _writing(self, name: str) -> Iterator[_Sink]:
        path = self.folder / name
        with telling_full_disk(self.folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            sink = _Sink(path)
            try:
                yield sink
            finally:
                sink.close()
            sink.check()
            self.facts[name] = {"bytes": sink.num_bytes, "sha256": sink.hash.hexdigest()}


class _Sink:
    """An open file that hashes what is written to it, and keeps its first error for :meth:`check`.

    ``torch.save`` goes on writing after an error and then hides it behind one of its own, which does not say that the
    disk was full.
    """

    def __init__(self, path: Path) -> None:
        self.hash = hashlib.sha256()
        self.num_bytes = 0
        self._file = path.open("wb", buffering=0)
        self._pending = bytearray()
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        """Take bytes, or whatever has a buffer."""
        view = memoryview(data).cast("B")
        if len(view) >= _BUFFER_BYTES:
            self.flush()
            self._put(view)
        else:
            self._pending += view
            if len(self._pending) >= _BUFFER_BYTES:
                self.flush()
        return len(view)

    def flush(self) -> None:
        """Hand over what small writes have gathered."""
        pending, self._pending = self._pending, bytearray()
        self._put(memoryview(pending))

    def _put(self, view: memoryview) -> None:
        self.hash.update(view)
        self.num_bytes += len(view)
        while len(view) and self._error is None:
            try:
                view = view[self._file.write(view) :]
            except OSError as error:
                self._error = error

    def close(self) -> None:
        """Make the file durable and close it."""
        self.flush()
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            self._error = self._error or error
        finally:
            self._file.close()

    def check(self) -> None:
        """Raise the first error, if there was one."""
        if self._error is not None:
            raise self._error
