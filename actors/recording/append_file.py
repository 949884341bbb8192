"""A file to whose end whole pieces are written, or nothing: a full disk leaves no half of one behind."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


class AppendFile:
    """A file with one writer. What :meth:`append` has written is with the system: it survives the end of this process.

    Args:
        path: made if it does not exist, with its folder.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)  # a buffer would keep what failed, and write it once more later

    def append(self, data: bytes) -> None:
        """Write all of ``data``.

        Raises:
            OSError: it cannot be written; the file is as it was before, so that the call can be repeated.
        """
        begin = self._file.seek(0, 2)
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            with suppress(OSError):
                self._file.truncate(begin)
            raise

    def close(self) -> None:
        """Release the file. Closing twice is allowed."""
        self._file.close()
