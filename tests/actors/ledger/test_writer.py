"""Changes that are asked for at the same time are one transaction, in their order, and each has its own end."""

from __future__ import annotations

import asyncio
import errno
from functools import partial
from pathlib import Path

from actors.ledger.errors import LedgerError
from actors.ledger.ledger import Ledger
from actors.ledger.writer import LedgerWriter
from actors.recording.disk_space import DiskSpace
from rollout.component.mistakes import DiskIsFull
from tests.actors.ledger.ledger_samples import PROMPTS, SIZE, admit, names, states


def writer(ledger: Ledger, timeout_s: float = 5.0) -> LedgerWriter:
    return LedgerWriter(ledger, DiskSpace(timeout_s, lambda _: None))


def num_commits(ledger: Ledger) -> list[str]:
    """Every COMMIT from here on."""
    seen: list[str] = []
    ledger._file._db.set_trace_callback(lambda statement: seen.append(statement) if statement == "COMMIT" else None)
    return seen


async def test_what_is_asked_for_at_once_is_one_transaction(ledger: Ledger, path: Path) -> None:
    written, commits = writer(ledger), num_commits(ledger)
    await asyncio.gather(*(written.write(partial(admit, ledger, index)) for index in range(3)))
    assert len(commits) == 1
    assert {state for state, _ in states(path).values()} == {"in_flight"}
    assert len(states(path)) == 3 * SIZE
    await written.write(partial(ledger.ready, names(0)[0], 3))
    assert len(commits) == 2


async def test_changes_are_made_in_their_order(ledger: Ledger, path: Path) -> None:
    written, name = writer(ledger), names(0)[0]
    changes = (partial(admit, ledger, 0), partial(ledger.ready, name, 3), partial(ledger.drop, name, "late", 1))
    await asyncio.gather(*map(written.write, changes))
    assert states(path)[name] == ("dropped", 1)


async def test_one_that_is_refused_fails_alone(ledger: Ledger, path: Path) -> None:
    written, (first, second) = writer(ledger), names(0)
    admit(ledger, 0)
    asked = (partial(ledger.ready, first, 3), partial(ledger.ready, "nobody#0", 3), partial(ledger.ready, second, 3))
    errors = await asyncio.gather(*map(written.write, asked), return_exceptions=True)
    assert [type(error) for error in errors] == [type(None), LedgerError, type(None)]
    assert "nobody#0 was never admitted" in str(errors[1])
    assert {state for state, _ in states(path).values()} == {"ready"}


async def test_a_writer_that_was_replaced_changes_nothing(ledger: Ledger, path: Path) -> None:
    admit(ledger, 0)
    other = Ledger(path, num_prompts=PROMPTS, samples_per_prompt=SIZE)
    asked = [partial(ledger.ready, name, 3) for name in names(0)]
    errors = await asyncio.gather(*map(writer(ledger).write, asked), return_exceptions=True)
    assert all("another process has taken this ledger over" in str(error) for error in errors)
    assert {state for state, _ in states(path).values()} == {"in_flight"}
    other.close()


async def test_a_full_disk_is_waited_for_once_by_all(ledger: Ledger) -> None:
    tried = 0

    def fail() -> None:
        nonlocal tried
        tried += 1
        raise LedgerError("full") from OSError(errno.ENOSPC, "no space")

    written = writer(ledger, 0.0)
    errors = await asyncio.gather(*(written.write(fail) for _ in range(4)), return_exceptions=True)
    assert [type(error) for error in errors] == [DiskIsFull] * 4
    assert tried == 2, "once, and once more when the wait is over; the changes after the first are not reached"


async def test_who_gives_up_waiting_stops_nobody(ledger: Ledger, path: Path) -> None:
    written = writer(ledger)
    admit(ledger, 0)
    first, second = (asyncio.ensure_future(written.write(partial(ledger.ready, name, 3))) for name in names(0))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert {state for state, _ in states(path).values()} == {"ready"}
