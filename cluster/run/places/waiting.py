"""Waiting for actors to be ready, and for room to put them in: deadlines, signals, and what is missing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util import placement_group, placement_group_table, remove_placement_group

from actors.pools.loss import failure
from cluster.run.places.placement import Bundle, Plan, describe, require_capacity
from cluster.run.signals import SignalFlag

LOOK_UP_S = 0.5
ONE_NODE_S = 5.0
"""How long the learner ranks wait for all of them to be on one node, in seconds."""
FIRST_TOLD_S, TELL_EVERY_S = 1.0, 30.0
"""Seconds of waiting that nobody needs to know of, and between two lines about it."""


def wait_for(references: Mapping[str, Any], method: str, deadline: float, signals: SignalFlag) -> dict[str, Any]:
    """Results by worker name.

    Args:
        references: worker name -> reference of the result.
        method: what the workers were asked to do, for messages.
        deadline: on the monotonic clock.
        signals: looked at twice a second.

    Raises:
        Interrupted: a signal came.
        TimeoutError: some did not answer in time; they are named.
        WorkerError, UserError: one failed, as soon as it did.
    """
    names = {reference: name for name, reference in references.items()}
    results: dict[str, Any] = {}
    pending = list(names)
    while pending:
        signals.check()
        ready, pending = ray.wait(pending, timeout=LOOK_UP_S)
        for reference in ready:
            try:
                results[names[reference]] = ray.get(reference)
            except RayError as error:
                raise failure(names[reference], method, error) from error
        if pending and time.monotonic() > deadline:
            late = ", ".join(names[reference] for reference in pending)
            raise TimeoutError(
                f"{late} not ready in {method} within cluster.start_timeout_s; the logs folder has what they printed"
            )
    return results


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
        time.sleep(LOOK_UP_S)


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


def reserve(demand: Plan, timeout_s: float, tell: Callable[[str], None], check: Callable[[], None]) -> tuple[Any, Any]:
    """Ray placement groups of the learner ranks and of all others; None for one without any.

    The others come first and are packed, since their bundles may be larger. Then the learner ranks, which talk most
    with each other, get one node if they can have one now, else as few as Ray finds.

    Args:
        timeout_s: longest wait for each, in seconds; ``cluster.start_timeout_s``.
        tell, check: see :func:`wait_for_room`.

    Raises:
        UserError: the cluster can never hold them.
        TimeoutError: they did not become free in time.
    """
    require_capacity(demand, [node["Resources"] for node in ray.nodes() if node["Alive"]])
    others, ranks = [*demand.rollout_bundles, *demand.reward_model_bundles], demand.learner_bundles
    groups: list[Any] = []

    def group(bundles: Sequence[Bundle]) -> Any:
        if not bundles:
            return None
        groups.append(placement_group(list(bundles), strategy="PACK"))
        wait_for_room(groups[-1], timeout_s, "cluster.start_timeout_s", tell, check)
        return groups[-1]

    try:
        rest = group(others)
        return _on_one_node(ranks) or group(ranks), rest
    except BaseException:
        for made in groups:
            remove_placement_group(made)
        raise


def _on_one_node(bundles: Sequence[Bundle]) -> Any:
    """A placement group on one node, or None where none has room for it now."""
    if not bundles:
        return None
    group = placement_group(list(bundles), strategy="STRICT_PACK")
    if group.wait(ONE_NODE_S):
        return group
    remove_placement_group(group)
    return None
