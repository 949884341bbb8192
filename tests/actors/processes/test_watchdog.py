"""The watchdog: once a stall, with what is known, and again after the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from actors.processes import watchdog
from actors.processes.watchdog import Watchdog
from actors.recording.run_status import RunStatus

TIMEOUT_S = 0.2


class Reports:
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.came = asyncio.Event()

    async def __call__(self, text: str) -> None:
        self.texts.append(text)
        self.came.set()

    async def next(self) -> str:
        await asyncio.wait_for(self.came.wait(), 10.0)
        self.came.clear()
        return self.texts[-1]


async def two_lines() -> list[str]:
    return ["rollout-0: /stacks/rollout-0-5.txt", "learner-0: no stack dump: gone"]


async def first_report(dump: Callable[[], Awaitable[list[str]]]) -> str:
    reports, status = Reports(), RunStatus(None)
    with status.stage("sync", ["rollout-0"]):
        task = asyncio.create_task(Watchdog(status, TIMEOUT_S, dump, reports).run())
        text = await reports.next()
        task.cancel()
    return text


async def test_report_says_stage_ids_events_and_dumps() -> None:
    lines = (await first_report(two_lines)).splitlines()
    assert lines[1] == "stage sync for 0 s: rollout-0"
    assert lines[-3:] == ["stack dumps:", *(f"  {line}" for line in await two_lines())]


async def test_once_a_stall_and_again_after_progress() -> None:
    reports, status = Reports(), RunStatus(None)
    task = asyncio.create_task(Watchdog(status, TIMEOUT_S, two_lines, reports).run())
    await reports.next()
    deadline = asyncio.get_running_loop().time() + 4 * TIMEOUT_S
    while asyncio.get_running_loop().time() < deadline:  # the stall lasts: nothing more is reported
        await asyncio.sleep(0.02)
    assert len(reports.texts) == 1
    status.progress()
    await reports.next()
    assert len(reports.texts) == 2
    task.cancel()


async def test_no_report_while_things_get_done() -> None:
    reports, status = Reports(), RunStatus(None)
    task = asyncio.create_task(Watchdog(status, 1.0, two_lines, reports).run())
    deadline = asyncio.get_running_loop().time() + 1.5
    while asyncio.get_running_loop().time() < deadline:
        status.progress()
        await asyncio.sleep(0.02)
    task.cancel()
    assert reports.texts == []


async def test_dump_that_fails_or_hangs_does_not_silence_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails() -> list[str]:
        raise ConnectionError("node is gone")

    async def hangs() -> list[str]:
        await asyncio.Event().wait()
        return []

    assert (await first_report(fails)).endswith("stack dumps:\n  none: ConnectionError: node is gone")
    monkeypatch.setattr(watchdog, "DUMP_TIMEOUT_S", 0.1)
    assert (await first_report(hangs)).endswith("stack dumps:\n  none within 0.1 s")
