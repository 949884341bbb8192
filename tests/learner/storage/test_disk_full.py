"""What counts as a full disk."""

from __future__ import annotations

import errno
import sqlite3

import pytest

from learner.storage.disk_full import is_disk_full
from learner.storage.manifest import DiskFullError

FULL = OSError(errno.ENOSPC, "No space left on device")


def sqlite_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "is_full"),
    [
        (FULL, True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EIO, "Input/output error"), False),
        (OSError("without a number"), False),
        (DiskFullError("checkpoints/step-1", "it needs 9 MiB"), True),
        (sqlite_error(sqlite3.SQLITE_FULL), True),
        (sqlite_error(sqlite3.SQLITE_IOERR_SHMSIZE), True),
        (sqlite_error(sqlite3.SQLITE_IOERR_READ), False),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (RuntimeError("I/O error: Input/output error (os error 5)"), False),
        (ValueError("No space left on device"), False),
        (None, False),
    ],
)
def test_what_says_that_the_disk_is_full(error: Exception | None, is_full: bool) -> None:
    assert is_disk_full(error) is is_full
    wrapped = RuntimeError("the ledger cannot be written")
    wrapped.__cause__ = error
    assert is_disk_full(wrapped) is is_full


def test_a_real_full_database_and_a_closed_one() -> None:
    db = sqlite3.connect(":memory:")
    db.execute("PRAGMA max_page_count = 2")
    with pytest.raises(sqlite3.OperationalError) as full:
        db.executescript("CREATE TABLE a (b); INSERT INTO a VALUES (zeroblob(99999))")
    assert is_disk_full(full.value)
    db.close()
    with pytest.raises(sqlite3.ProgrammingError) as closed:  # Python's own error, which has no code of SQLite's
        db.execute("SELECT 1")
    assert not is_disk_full(closed.value)
