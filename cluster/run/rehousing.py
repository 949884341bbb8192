"""New places for learner ranks whose host was lost: waiting for room is a state, told and bounded."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from actors.recording.run_status import RunStatus
from cluster.config.run_config import RunConfig
from cluster.run.places.placement import Bundle
from cluster.run.places.waiting import bundles_without_room, wait_for_room
from cluster.run.signals import SignalFlag
from cluster.run.workers import Fleet

LOOK_S = 0.2
MAKE_ROOM_EVERY_S = 5.0
"""Seconds between two looks at whether fewer rollout workers would make room for what the run needs first."""
ANSWER_S = 60.0
"""Longest wait for a controller that stands still, in seconds."""


class NewPlaces:
    """Waits until learner ranks and reward models have a host.

    Args:
        config: the run's.
        run_dir: its folder.
        fleet: whose processes they are.
        signals: looked at while it waits.
        tell: takes a line.
    """

    def __init__(
        self, config: RunConfig, run_dir: Path, fleet: Fleet, signals: SignalFlag, tell: Callable[[str], None]
    ) -> None:
        self._config, self._run_dir, self._fleet = config, run_dir, fleet
        self._signals, self._tell = signals, tell

    def wait(self, fault: BaseException, step: int, controller: Any) -> None:
        """Until the new learner ranks live, however long the cluster has no room for them.

        status.json says so meanwhile, as no controller is at work that would.

        Args:
            fault: why they are new.
            step: updates done.
            controller: lets rollout workers go that the run can do without; None if it is lost as well.

        Raises:
            RuntimeError: there was no room for ``recovery.resource_timeout_s``.
        """
        status = RunStatus(self._run_dir / "status.json")
        status.step = step
        places = [learner.address.remote() for learner in self._fleet.learners]
        deadline = time.monotonic() + self._config.cluster.start_timeout_s
        with status.stage("wait for room"):
            while places and time.monotonic() < deadline:
                self._signals.check()
                begin = time.monotonic()
                try:
                    self._wait_for_room(controller)  # again and again: that a host is lost is known only after a while
                except TimeoutError as error:
                    raise RuntimeError(f"{fault}; {error}. Add a host, and go on with --resume") from error
                deadline += time.monotonic() - begin
                _, places = ray.wait(places, num_returns=len(places), timeout=LOOK_S)

    def _wait_for_room(self, controller: Any) -> None:
        groups = [*filter(None, self._fleet.placements)]
        asked_at = float("-inf")

        def check() -> None:
            nonlocal asked_at
            self._signals.check()
            if time.monotonic() - asked_at < MAKE_ROOM_EVERY_S:
                return
            asked_at = time.monotonic()
            if leaving := _make_room(controller, bundles_without_room(groups)):
                self._tell(f"{', '.join(leaving)} make room; they come back when there is some")

        limit_s = self._config.recovery.resource_timeout_s
        wait_for_room(groups, limit_s, "recovery.resource_timeout_s", self._tell, check)


def _make_room(controller: Any, needed: Sequence[Bundle]) -> list[str]:
    """Let rollout workers go that the run can do without, if others have room then; returns their names."""
    if controller is None or not needed:
        return []
    try:
        leaving: list[str] = ray.get(controller.make_room.remote(needed), timeout=ANSWER_S)
    except RayError:  # a controller that is lost as well is found out by the next attempt
        return []
    return leaving
