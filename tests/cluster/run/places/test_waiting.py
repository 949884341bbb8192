"""Waiting for room in a real Ray that is full."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray._raylet import PlacementGroupID
from ray.util import placement_group, placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup

from cluster.run.places.waiting import wait_for_room

pytestmark = [pytest.mark.slow, pytest.mark.ray]


@pytest.fixture
def full(ray_local: None) -> Iterator[Any]:
    """A placement group that leaves 1 of 4 CPUs."""
    for name, group in placement_group_table().items():  # of tests before these, in the same Ray
        if group["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(name))))
    taken = placement_group([{"CPU": 3.0}])
    assert taken.wait(60), f"3 CPUs are not free: {ray.available_resources()}, {placement_group_table()}"
    yield taken
    remove_placement_group(taken)


def test_what_has_room_does_not_wait(full: Any) -> None:
    def never(*_: str) -> None:
        raise AssertionError

    wait_for_room([full], 0.0, "option", never, never)


def test_waiting_is_told_and_over_when_there_is_room(full: Any) -> None:
    wanted = placement_group([{"CPU": 2.0}, {"CPU": 1.0}])
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        remove_placement_group(full)

    wait_for_room([wanted], 60.0, "option", tell, lambda: None)
    remove_placement_group(wanted)
    (line,) = told
    assert line.startswith(
        "waiting for room in the cluster, for 1 of at most 60 s: needed, each on one host: 2 CPU, 1 CPU"
    )
    assert line.endswith("free on 1 host: 1 CPU")


def test_the_deadline_says_what_is_missing_and_a_signal_ends_it(full: Any) -> None:
    wanted = placement_group([{"CPU": 2.0}])
    try:
        with pytest.raises(
            TimeoutError, match=r"^no room in the cluster for 0.6 s \(the.option\): needed, .*: 2 CPU; free"
        ):
            wait_for_room([wanted], 0.6, "the.option", lambda _: None, lambda: None)
        looks = itertools.count()

        def check() -> None:
            if next(looks) == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            wait_for_room([wanted], 600.0, "the.option", lambda _: None, check)
    finally:
        remove_placement_group(wanted)
