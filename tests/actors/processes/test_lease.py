"""A lease runs out when nobody renews it, and not before."""

from __future__ import annotations

import asyncio

from actors.processes.lease import Lease


def test_what_is_left() -> None:
    now = 100.0
    lease = Lease(10.0, lambda: now)
    assert lease.left_s == 10.0
    now = 107.0
    assert lease.left_s == 3.0
    lease.renew()
    now = 116.0
    assert lease.left_s == 1.0
    now = 200.0
    assert lease.left_s == 0.0


async def test_it_runs_out_only_after_the_last_renewal() -> None:
    lease = Lease(0.2)
    over = asyncio.create_task(lease.run_out())
    for _ in range(5):
        await asyncio.sleep(0.05)
        lease.renew()
    assert not over.done()
    await asyncio.wait_for(over, 10.0)
    assert lease.left_s == 0.0
