"""Whoever has lost a run to another process changes nothing of it any more."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from actors.ledger.errors import LedgerError, TakenOver
from actors.ledger.fence import take_over
from actors.ledger.ledger import Ledger
from tests.actors.ledger.ledger_samples import PROMPTS, SIZE, admit


def opened(path: Path) -> Ledger:
    return Ledger(path, num_prompts=PROMPTS, samples_per_prompt=SIZE)


def test_the_newest_writer_has_the_run(ledger: Ledger, path: Path) -> None:
    fence = ledger.fence
    fence.check()
    with fence.held():
        assert fence.is_intact()
    newer = opened(path)
    assert not fence.is_intact()
    for refused in (fence.check, lambda: fence.held().__enter__()):
        with pytest.raises(TakenOver, match="another process has taken this ledger over; this one must stop"):
            refused()
    newer.fence.check()
    admit(newer, 0)
    newer.close()


def test_a_run_can_be_taken_from_its_writer_before_the_next_one_is_there(ledger: Ledger, path: Path) -> None:
    take_over(path)
    assert not ledger.fence.is_intact()
    with pytest.raises(TakenOver):
        admit(ledger, 0)
    newer = opened(path)
    admit(newer, 0)
    newer.close()


def test_nobody_takes_a_run_over_while_its_fence_is_held(ledger: Ledger, path: Path) -> None:
    order: list[str] = []
    begun = threading.Event()

    def take() -> None:
        begun.set()
        take_over(path)
        order.append("taken over")

    thread = threading.Thread(target=take)
    with ledger.fence.held():
        thread.start()
        begun.wait(10.0)
        thread.join(0.2)  # it would be over by far
        order.append("left")
    thread.join(30.0)
    assert order == ["left", "taken over"]


def test_what_fails_inside_leaves_the_run_to_its_writer(ledger: Ledger, path: Path) -> None:
    with pytest.raises(ZeroDivisionError), ledger.fence.held():
        raise ZeroDivisionError
    admit(ledger, 0)
    take_over(path)
    assert not ledger.fence.is_intact()


def test_a_ledger_that_is_not_there_is_not_made(tmp_path: Path, ledger: Ledger, path: Path) -> None:
    take_over(tmp_path / "none.sqlite")
    assert not (tmp_path / "none.sqlite").exists()
    (tmp_path / "text.sqlite").write_text("not a database, but long enough to be looked at as if it were one" * 9)
    with pytest.raises(LedgerError, match=r"text\.sqlite: file is not a database"):
        take_over(tmp_path / "text.sqlite")
    fence = ledger.fence
    ledger.close()
    path.unlink()
    with pytest.raises(LedgerError, match="unable to open"):
        fence.check()
    assert fence.is_intact(), "nobody is known to have taken it over"
    assert not path.exists()
