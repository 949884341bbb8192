"""A room for each rollout worker: a reservation of its own, which is asked for when it is wanted and given back after.

So the loss of a host concerns its workers alone, and what has no room yet is a wish that Ray knows of, its autoscaler
included.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ray._private.state import available_resources_per_node
from ray.util import get_placement_group, placement_group, placement_group_table, remove_placement_group

from cluster.run.places.placement import Bundle, who_makes_room

LOOK_UP_S, HOST_LOOK_S = 0.5, 2.0
FREE_ROOM_S = 2.0
"""How long a start waits for the workers that it can do without: what has room now has it by then."""
THERE, REMOVED = "CREATED", "REMOVED"


class RolloutRooms:
    """Reservations by the number of the worker. Can be sent to another process, which then goes on with them.

    Args:
        bundle: what each worker needs.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._prefix = f"dvpo-{uuid.uuid4().hex}-"
        self._groups: dict[int, Any] = {}

    def ask(self, index: int) -> Any:
        """Ask for a room, and return the placement group that it will be."""
        name = f"{self._prefix}{index}-{os.getpid()}-{uuid.uuid4().hex[:8]}"  # Ray remembers names of removed ones
        self._groups[index] = placement_group([dict(self._bundle)], strategy="PACK", name=name)
        return self._groups[index]

    def group(self, index: int) -> Any:
        """The placement group of a worker."""
        return self._groups[index]

    @property
    def groups(self) -> list[Any]:
        """All placement groups."""
        return list(self._groups.values())

    def of(self, names: Sequence[str]) -> list[Any]:
        """The placement groups of workers by their names, which end in their numbers."""
        numbers = (int(name.rsplit("-", 1)[1]) for name in names)
        return [group for number in numbers if (group := self._groups.get(number)) is not None]

    async def take(self, index: int) -> None:
        """See :class:`actors.pools.members.Rooms`."""
        group = self.ask(index)
        while not await asyncio.to_thread(group.wait, LOOK_UP_S):
            pass

    async def lost(self, index: int) -> None:
        """See :class:`actors.pools.members.Rooms`."""
        group = self._groups[index]
        while (await asyncio.to_thread(placement_group_table, group)).get("state") == THERE:
            await asyncio.sleep(HOST_LOOK_S)

    def give_back(self, index: int) -> None:
        """See :class:`actors.pools.members.Rooms`."""
        if (group := self._groups.pop(index, None)) is not None:
            remove_placement_group(group)

    def take_more(self, first: int, end: int) -> int:
        """Take rooms for the workers from ``first`` to ``end`` as far as there are any now; returns for how many."""
        asked = [self.ask(index) for index in range(first, end)]
        found = [group for group in asked if group.wait(FREE_ROOM_S)]
        for index in range(first, end):
            del self._groups[index]
        for group in asked:
            if group not in found:
                remove_placement_group(group)
        self._groups |= dict(enumerate(found, first))
        return len(found)

    def release(self, all_of_them: bool) -> None:
        """Give back the rooms of this run: all, or those that only another process, which is gone, knew of."""
        kept = [] if all_of_them else [group.id.hex() for group in self.groups]
        for identity, facts in placement_group_table().items():
            if facts["name"].startswith(self._prefix) and identity not in kept and facts["state"] != REMOVED:
                with suppress(ValueError):  # it is gone since
                    remove_placement_group(get_placement_group(facts["name"]))

    def who_makes_room(self, needed: Sequence[Bundle], spare: int) -> list[int]:
        """Numbers of the workers that have to leave so that other processes have room; see the function's namesake.

        Args:
            needed: what each of the others needs.
            spare: how many may leave.
        """
        tables = {index: placement_group_table(group) for index, group in self._groups.items()}
        homes = {
            index: table["bundles_to_node_id"][0] for index, table in tables.items() if table.get("state") == THERE
        }
        return who_makes_room(needed, available_resources_per_node(), homes, self._bundle, spare)
