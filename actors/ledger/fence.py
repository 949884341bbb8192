"""Who may change a run's files: whoever has opened its ledger last.

A controller that was cut off from the cluster may live on, reach the disk, and not know that another one has taken its
place. Each writer of a ledger leaves a token of its own in it. Whoever finds another's there has been replaced, and
must not touch what the run shows to others: checkpoints, metrics, status.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from actors.ledger.errors import LedgerError, TakenOver

WAIT_S = 30.0
"""How long to wait for a ledger that somebody else is writing to."""


class Fence:
    """The right of one writer of a ledger. Calls may come from any thread.

    Args:
        ledger: the file.
        token: what its writer has left in it.
    """

    def __init__(self, ledger: Path, token: str) -> None:
        self._ledger, self._token = ledger, token

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside the block nobody takes the run over: whoever wants to waits. Keep it short, it also holds the ledger.

        Raises:
            TakenOver: somebody has.
            LedgerError: the ledger cannot be read.
        """
        with _opened(self._ledger) as db:
            db.execute("BEGIN IMMEDIATE")
            self._check(db)
            yield

    def check(self) -> None:
        """Raise :class:`TakenOver` if somebody has taken the run over by now; :class:`LedgerError` as for ``held``."""
        with _opened(self._ledger) as db:
            self._check(db)

    def is_intact(self) -> bool:
        """Whether nobody has taken the run over by now. A ledger that cannot be read tells nothing: then it is."""
        try:
            self.check()
        except LedgerError as error:
            return not isinstance(error, TakenOver)
        return True

    def _check(self, db: sqlite3.Connection) -> None:
        if not is_owner(db, self._token):
            raise TakenOver(self._ledger)


def is_owner(db: sqlite3.Connection, token: str) -> bool:
    """Whether ``token`` was left last."""
    return bool(db.execute("SELECT value FROM facts WHERE name = 'owner'").fetchone() == (token,))


def become_owner(db: sqlite3.Connection, token: str) -> None:
    """Leave ``token`` in a ledger, inside a transaction of the caller's."""
    db.execute("INSERT OR REPLACE INTO facts VALUES ('owner', ?)", (token,))


def take_over(ledger: Path) -> None:
    """From now on no writer of the ledger changes anything, until it is opened anew. Without a file there is none.

    Raises:
        LedgerError: it cannot be written to.
    """
    if not ledger.exists():
        return
    with _opened(ledger) as db:
        db.execute("BEGIN IMMEDIATE")
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'facts'").fetchone() is not None:
            become_owner(db, uuid.uuid4().hex)
        db.execute("COMMIT")


@contextmanager
def _opened(ledger: Path) -> Iterator[sqlite3.Connection]:
    """A connection of its own: that of the ledger may be in use by another thread. Left open, a change is undone."""
    try:
        uri = f"{ledger.resolve().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=WAIT_S)) as db:
            yield db
    except sqlite3.Error as error:
        raise LedgerError(f"{ledger}: {error}") from error
