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
from cluster.run.places.rooms import RolloutRooms
from cluster.run.signals import SignalFlag

LOOK_UP_S, SHORT_S = 0.5, 0.05
FIRST_TRY_S = 5.0
"""How long what the run needs besides the learner waits for room that the learner has left, in seconds."""
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
    groups: Sequence[Any], timeout_s: float, option: str, tell: Callable[[str], None], check: Callable[[], None]
) -> None:
    """Return when all places of placement groups are on hosts that live.

    Args:
        groups: the placement groups; Ray itself looks for other hosts for places whose host is lost.
        timeout_s: longest time to wait.
        option: where that is set, for the message.
        tell: takes one line, first after a second, then every half minute.
        check: called twice a second; may raise.

    Raises:
        TimeoutError: there was no room for so long; says what is missing.
    """
    begin = time.monotonic()
    tell_at = begin + FIRST_TOLD_S
    while lack := lack_of(groups):
        check()
        waited = time.monotonic() - begin
        if waited > timeout_s:
            raise TimeoutError(f"no room in the cluster for {timeout_s:g} s ({option}): {lack}")
        if time.monotonic() >= tell_at:
            tell(f"waiting for room in the cluster, for {waited:.0f} of at most {timeout_s:g} s: {lack}")
            tell_at += TELL_EVERY_S
        absent = [group for group in groups if not _is_there(placement_group_table(group))]
        if absent:
            absent[0].wait(LOOK_UP_S)  # over as soon as it is there
        time.sleep(SHORT_S)


def lack_of(groups: Sequence[Any]) -> str:
    """What has no place yet, and what there is; empty if all has one."""
    without = bundles_without_room(groups)
    if not without:
        return ""
    nodes = ray.nodes()
    num_living = sum(node["Alive"] for node in nodes)
    needed = ", ".join(map(describe, without))
    lost = sorted({node["NodeManagerAddress"] for node in nodes if not node["Alive"]})
    gone = f"; hosts that are lost: {', '.join(lost)}" if lost else ""
    where = "1 host" if num_living == 1 else f"{num_living} hosts together"
    return f"needed, each on one host: {needed}; free on {where}: {describe(ray.available_resources())}{gone}"


def bundles_without_room(groups: Sequence[Any]) -> list[Bundle]:
    """Of placement groups that are not whole on hosts that live: the bundles that have no place there."""
    living = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    without: list[Bundle] = []
    for table in map(placement_group_table, groups):
        if not _is_there(table):
            bundles, places = table.get("bundles", {}), table.get("bundles_to_node_id", {})
            homeless = [bundle for place, bundle in bundles.items() if places.get(place) not in living]
            without += homeless or list(bundles.values())
    return without


def _is_there(table: Mapping[str, Any]) -> bool:
    return table.get("state") == "CREATED"


def reserve(
    demand: Plan,
    rooms: RolloutRooms,
    num_rollouts: int,
    timeout_s: float,
    tell: Callable[[str], None],
    check: Callable[[], None],
) -> tuple[Any, Any, int]:
    """Ray placement groups of the learner ranks and of the reward models, None without any; and rooms of the rollouts.

    The learner ranks come first, beside the driver and its controller if they can, so that the loss of any other host
    costs workers only. Where the others that the run needs find no room then, they choose first: their bundles may be
    larger. Rollout workers that the run can do without get what is left.

    Args:
        rooms: where those of the rollout workers are kept.
        num_rollouts: rollout workers to begin with where there is room for them.
        timeout_s: longest wait for all, in seconds; ``cluster.start_timeout_s``.
        tell, check: see :func:`wait_for_room`.

    Returns:
        Both groups, and how many rollout workers have a room.

    Raises:
        UserError: the cluster can never hold them.
        TimeoutError: they did not become free in time.
    """
    require_capacity(demand, [node["Resources"] for node in ray.nodes() if node["Alive"]])
    option, num_needed = "cluster.start_timeout_s", len(demand.rollout_bundles)
    served, learners = None, learners_group(demand.learner_bundles)
    try:
        if demand.reward_model_bundles:
            served = placement_group(list(demand.reward_model_bundles), strategy="PACK")
        others = [*filter(None, [served]), *map(rooms.ask, range(num_needed))]
        if learners is not None and not all(group.wait(FIRST_TRY_S) for group in others):
            remove_placement_group(learners)
            wait_for_room(others, timeout_s, option, tell, check)
            learners = learners_group(demand.learner_bundles)
        wait_for_room([*filter(None, [learners]), *others], timeout_s, option, tell, check)
        return learners, served, num_needed + rooms.take_more(num_needed, num_rollouts)
    except BaseException:
        for made in filter(None, (learners, served)):
            remove_placement_group(made)
        rooms.release(all_of_them=True)
        raise


def learners_group(bundles: Sequence[Bundle]) -> Any:
    """A placement group of learner ranks: on one node if one has room for all now, else it waits for several.

    The driver's node is the first choice.
    """
    if not bundles:
        return None
    return _on_one_node(bundles) or placement_group(list(bundles), strategy="PACK")


def _on_one_node(bundles: Sequence[Bundle]) -> Any:
    """A placement group on one node, or None where none has room for it now."""
    here = ray.get_runtime_context().get_node_id()
    group = placement_group(list(bundles), strategy="STRICT_PACK", _soft_target_node_id=here)
    if group.wait(ONE_NODE_S):
        return group
    remove_placement_group(group)
    return None
