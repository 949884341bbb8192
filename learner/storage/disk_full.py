"""How a full disk is recognised, whoever says so.

Standard library only: the event log needs it, which also the small process that clears up after a killed run writes.
"""

from __future__ import annotations

import errno
import re
import sqlite3

_FULL = (errno.ENOSPC, errno.EDQUOT)
_SQLITE_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
"""The second one: no space for the index of the write-ahead log, when a database is opened or that log grows."""
_IN_WORDS = re.compile(r"\(os error (\d+)\)")
"""How errors of libraries in Rust, such as safetensors, end: they have no other trace of the number."""


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised from, says that the disk or the quota is full."""
    while error is not None:
        if isinstance(error, OSError):
            if error.errno in _FULL:
                return True
        elif isinstance(error, sqlite3.Error):
            # Python's own refusals, such as that of a closed connection, have no code.
            if getattr(error, "sqlite_errorcode", None) in _SQLITE_FULL:
                return True
        elif any(int(number) in _FULL for number in _IN_WORDS.findall(str(error))):
            return True
        error = error.__cause__ or error.__context__
    return False
