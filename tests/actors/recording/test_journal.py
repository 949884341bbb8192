"""The journal: cursors of a reader, and bounds."""

from __future__ import annotations

import asyncio

import pytest

from actors.recording.journal import Journal


async def test_a_reader_sees_each_entry_once_in_order() -> None:
    journal, seen, cursor = Journal(), [], 0
    for step in range(50):
        journal.add("step", step, values={"x": float(step)})
        if step % 7 == 0:
            entries = await journal.read(cursor, 0.0)
            cursor += len(entries)
            seen += entries
    seen += await journal.read(cursor, 0.0)
    assert [entry.step for entry in seen] == list(range(50))


async def test_an_answer_that_got_lost_is_given_again() -> None:
    journal = Journal()
    journal.add("event", 1, "a", level="warning")
    first = await journal.read(0, 0.0)
    journal.add("event", 2, "b")
    assert (await journal.read(0, 0.0))[:1] == first
    assert [entry.text for entry in await journal.read(1, 0.0)] == ["b"]
    assert first[0].level == "warning"


async def test_what_was_read_is_forgotten() -> None:
    journal, cursor = Journal(), 0
    for step in range(10_000):
        journal.add("step", step)
        cursor += len(await journal.read(cursor, 0.0))
    assert cursor == 10_000
    assert len(journal._entries) == 1
    with pytest.raises(ValueError, match=r"cursor 5 is outside 9999\.\.10000"):
        await journal.read(5, 0.0)


async def test_without_a_reader_the_oldest_steps_are_left_out_and_counted() -> None:
    journal, cursor = Journal(max_unread=10), 0
    journal.add("event", 0, "begin")
    cursor += len(await journal.read(0, 0.0))
    for step in range(100):
        journal.add("step", step)
        if step == 50:
            journal.add("event", step, "checkpoint")
    assert len(journal._entries) <= 11
    entries = await journal.read(cursor, 0.0)
    assert entries[0].text == "91 entries were left out here: nobody read them in time"
    assert [entry.text for entry in entries if entry.kind == "event"][1:] == ["checkpoint"]
    assert [entry.step for entry in entries if entry.kind == "step"] == list(range(91, 100))
    cursor += len(entries)
    assert await journal.read(cursor, 0.0) == []
    journal.add("event", 100, "end")
    assert [entry.text for entry in await journal.read(cursor, 0.0)] == ["end"]


async def test_entries_given_but_not_yet_acknowledged_are_not_left_out() -> None:
    journal = Journal(max_unread=5)
    for step in range(5):
        journal.add("step", step)
    given = await journal.read(0, 0.0)
    for step in range(5, 30):
        journal.add("step", step)
    rest = await journal.read(len(given), 0.0)
    assert [entry.step for entry in rest if entry.kind == "step"] == list(range(25, 30))
    assert rest[0].text.startswith("20 entries were left out")


async def test_only_events_are_bounded_too() -> None:
    journal = Journal(max_unread=5)
    for step in range(20):
        journal.add("event", step, str(step))
    texts = [entry.text for entry in await journal.read(0, 0.0)]
    assert texts[1:] == ["15", "16", "17", "18", "19"]


async def test_a_waiting_reader_is_woken() -> None:
    journal = Journal()
    reading = asyncio.create_task(journal.read(0, 30.0))
    await asyncio.sleep(0)
    journal.add("event", 1, "now")
    entries = await asyncio.wait_for(reading, 5.0)
    assert entries[0].text == "now"
    assert await journal.read(1, 0.01) == []
