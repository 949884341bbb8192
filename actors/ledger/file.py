"""The SQLite file under the ledger: its tables, and transactions of one owner."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from actors.ledger.errors import LedgerError, TakenOver
from actors.ledger.fence import Fence, become_owner, is_owner
from rollout.component.mistakes import RunDiffers

LEDGER_FORMAT = 2
"""``PRAGMA user_version`` of the file. Format 1 had no scores; it is read as one whose samples have none."""

SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE groups (
    group_index INTEGER PRIMARY KEY,
    prompt_id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    first_sample INTEGER NOT NULL,
    attempts INTEGER NOT NULL
);
CREATE TABLE samples (
    trajectory_id TEXT PRIMARY KEY,
    group_index INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'in_flight', 'ready', 'trained', 'dropped')),
    step INTEGER,
    num_tokens INTEGER,
    reason TEXT,
    CHECK ((state IN ('trained', 'dropped')) = (step IS NOT NULL)),
    CHECK ((state = 'dropped') = (reason IS NOT NULL))
) WITHOUT ROWID;
CREATE INDEX samples_of_group ON samples (group_index);
CREATE TABLE reissues (number INTEGER PRIMARY KEY, trajectory_id TEXT NOT NULL, cause TEXT NOT NULL);
CREATE TABLE steps (
    step INTEGER PRIMARY KEY, num_samples INTEGER NOT NULL, trajectory_ids BLOB NOT NULL, committed_at REAL NOT NULL
);
CREATE TABLE checkpoints (step INTEGER PRIMARY KEY, marked_at REAL NOT NULL);
CREATE TABLE rollbacks (
    number INTEGER PRIMARY KEY, to_step INTEGER NOT NULL, num_samples INTEGER NOT NULL, done_at REAL NOT NULL
);
CREATE TABLE undone_steps (
    rollback INTEGER NOT NULL, step INTEGER NOT NULL, num_samples INTEGER NOT NULL, trajectory_ids BLOB NOT NULL,
    committed_at REAL NOT NULL
);
"""
SCORE_COLUMNS = ("observed REAL", "answer_key TEXT", "gold REAL")
"""What format 2 added to samples, of new ledgers too."""


def keeps_scores(db: sqlite3.Connection) -> bool:
    """Whether a ledger has :data:`SCORE_COLUMNS`; one of format 1 has none."""
    return db.execute("SELECT 1 FROM pragma_table_info('samples') WHERE name = 'observed'").fetchone() is not None


@contextmanager
def open_for_reading(path: Path) -> Iterator[sqlite3.Connection]:
    """One unchanging view of a ledger, whether its run goes on, has ended or was killed. Nothing of it is changed.

    Raises:
        LedgerError: the file cannot be read, or is not a ledger of :data:`LEDGER_FORMAT`.
    """
    # A file without a log is complete. Opened as immutable, it is left alone: otherwise SQLite would make a new log.
    has_log = path.with_name(path.name + "-wal").exists()
    uri = f"{path.resolve().as_uri()}?{'mode=ro' if has_log else 'immutable=1'}"
    try:
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as db:
            db.execute("BEGIN")
            (found_format,) = db.execute("PRAGMA user_version").fetchone()
            if found_format not in (1, LEDGER_FORMAT):
                raise LedgerError(f"{path}: not a ledger of format {LEDGER_FORMAT} (found {found_format})")
            yield db
    except sqlite3.Error as error:
        raise LedgerError(f"{path}: {error}") from error


class LedgerFile:
    """The file, open for writing, in WAL mode.

    Args:
        path: made if it does not exist.
        facts: what the run was begun with: ``num_prompts`` and ``samples_per_prompt``.

    Raises:
        UserError: the file was begun with other facts.
        LedgerError: the file cannot be opened, or is not a ledger.
    """

    def __init__(self, path: Path, facts: Mapping[str, int]) -> None:
        self._path = path
        self._owner = uuid.uuid4().hex
        self._is_open = False  # a transaction for several changes
        try:
            # Transactions are begun by hand: those that Python begins by itself do not take the write lock at once.
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise self.refusal(str(error)) from error
        try:
            self._open(facts)
        # Whatever it is: the caller gets no object that it could close.
        except BaseException:
            self._db.close()
            raise

    def _open(self, facts: Mapping[str, int]) -> None:
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.Error as error:
            raise self.refusal(str(error)) from error
        with self._transaction(durable=True) as db:
            (found_format,) = db.execute("PRAGMA user_version").fetchone()
            if found_format == 0:
                # One by one, since executescript would commit first and so end the transaction.
                for statement in SCHEMA.split(";"):
                    db.execute(statement)
                db.executemany("INSERT INTO facts VALUES (?, ?)", [(name, str(facts[name])) for name in facts])
            if found_format in (0, 1):
                for column in SCORE_COLUMNS:
                    db.execute(f"ALTER TABLE samples ADD COLUMN {column}")
                db.execute(f"PRAGMA user_version = {LEDGER_FORMAT}")
            elif found_format != LEDGER_FORMAT:
                raise RunDiffers(f"{self._path}: a ledger of format {found_format}; this version has {LEDGER_FORMAT}")
            self._compare(facts, dict(db.execute("SELECT name, value FROM facts")))
            # The newest opener owns the file; every change by an older one then fails.
            become_owner(db, self._owner)

    def _compare(self, facts: Mapping[str, int], found: Mapping[str, str]) -> None:
        """Refuse to go on with other prompts or groups than the run was begun with."""
        words = {
            "num_prompts": "the data set had {0} training prompts, now it has {1}",
            "samples_per_prompt": "training.samples_per_prompt was {0}, now it is {1}",
        }
        wrong = [
            words[name].format(found.get(name), value) for name, value in facts.items() if found.get(name) != str(value)
        ]
        if wrong:
            raise RunDiffers(
                f"{self._path}: the run was begun differently: {'; '.join(wrong)}. Go on with what it was begun with, "
                "or start a new run: under another name, or with --overwrite"
            )

    @contextmanager
    def change(self, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it happens, or nothing and an exception is raised.

        Args:
            durable: be on the disk at the end, so that it survives a power cut; otherwise it survives the end of this
                process only, which costs no wait.

        Raises:
            LedgerError: SQLite could not do it, or another process has opened the file for writing since.
        """
        if self._is_open:
            yield self._db
            return
        with self._transaction(durable) as db:
            if not is_owner(db, self._owner):
                raise TakenOver(self._path)
            yield db

    @contextmanager
    def together(self) -> Iterator[None]:
        """One transaction of all changes inside the block that need not be durable at once. Errors as for one."""
        with self.change():
            self._is_open = True
            try:
                yield
            finally:
                self._is_open = False

    @contextmanager
    def _transaction(self, durable: bool) -> Iterator[sqlite3.Connection]:
        db = self._db
        try:
            if durable:
                db.execute("PRAGMA synchronous = FULL")
            # At once: a transaction that has begun with reading cannot get the write lock after another has written.
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self.refusal(str(error)) from error
        finally:
            self._settle(durable)

    def _settle(self, durable: bool) -> None:
        """Undo what was not committed; back to changes that do not wait for the disk."""
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if durable:
                self._db.execute("PRAGMA synchronous = NORMAL")
        except sqlite3.Error as error:
            raise self.refusal(str(error)) from error

    @property
    def fence(self) -> Fence:
        """Of this writer."""
        return Fence(self._path, self._owner)

    def close(self) -> None:
        """Release the file. Closing twice is allowed."""
        self._db.close()

    def refusal(self, text: str) -> LedgerError:
        """An error that names the file."""
        return LedgerError(f"{self._path}: {text}")
