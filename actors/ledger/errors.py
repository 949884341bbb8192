"""What a ledger refuses."""

from __future__ import annotations


class LedgerError(RuntimeError):
    """The ledger cannot be used, or a change contradicts what it holds. ``__cause__`` is SQLite's error, if any."""

    code = "run-ledger"


class TakenOver(LedgerError):
    """Another process has opened the ledger for writing since: this one has been replaced, and must stop."""

    def __init__(self, ledger: object) -> None:
        super().__init__(f"{ledger}: another process has taken this ledger over; this one must stop")
