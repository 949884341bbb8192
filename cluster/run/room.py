"""Waiting until the cluster has room for a run's processes: told while it lasts, ended by a deadline or a signal."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.util import placement_group_table

from cluster.run.placement import describe

FIRST_TOLD_S, TELL_EVERY_S = 1.0, 30.0
"""Seconds of waiting that nobody needs to know of, and between two lines about it."""
LOOK_S = 0.5


def wait_for_room(
    group: Any, timeout_s: float, option: str, tell: Callable[[str], None], check: Callable[[], None]
) -> None:
    """Return when all places of a placement group are on hosts that live.

    Args:
        group: the placement group; Ray itself looks for other hosts for places whose host is lost.
        timeout_s: longest time to wait.
        option: where that is set, for the message.
        tell: takes one line, first after a second, then every half minute.
        check: called twice a second; may raise.

    Raises:
        TimeoutError: there was no room for so long; says what is missing.
    """
    begin = time.monotonic()
    tell_at = begin + FIRST_TOLD_S
    while lack := _lack(group):
        check()
        waited = time.monotonic() - begin
        if waited > timeout_s:
            raise TimeoutError(f"no room in the cluster for {timeout_s:g} s ({option}): {lack}")
        if time.monotonic() >= tell_at:
            tell(f"waiting for room in the cluster, for {waited:.0f} of at most {timeout_s:g} s: {lack}")
            tell_at += TELL_EVERY_S
        time.sleep(LOOK_S)


def _lack(group: Any) -> str:
    """What has no place yet, and what there is; empty if all has one."""
    table = placement_group_table(group)
    if table["state"] == "CREATED":
        return ""
    nodes = ray.nodes()
    living = {node["NodeID"] for node in nodes if node["Alive"]}
    places: dict[int, str] = table["bundles_to_node_id"]
    without = [bundle for place, bundle in table["bundles"].items() if places.get(place) not in living]
    needed = ", ".join(describe(bundle) for bundle in without or table["bundles"].values())
    lost = sorted({node["NodeManagerAddress"] for node in nodes if not node["Alive"]})
    gone = f"; hosts that are lost: {', '.join(lost)}" if lost else ""
    where = "1 host" if len(living) == 1 else f"{len(living)} hosts together"
    return f"needed, each on one host: {needed}; free on {where}: {describe(ray.available_resources())}{gone}"
