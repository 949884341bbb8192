"""The controller's actor: one process that holds a :class:`actors.loop.controller.Controller` and runs it.

Its pools outlive the loss of a learner rank: rollout and reward workers stay, and the next attempt goes on with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.faults import Abandoned, Recoverable, Stalled
from actors.loop.staffing import Staffing
from actors.pools.reward_pool import RewardPool
from actors.pools.rollout_pool import RolloutPool
from actors.processes.lease import Lease
from actors.processes.watchdog import Watchdog
from actors.recording.journal import Entry
from actors.recording.scale_order import read_order
from cluster.config.paths import absolute_model_path
from cluster.config.prompts import load_prompts
from cluster.config.run_config import RunConfig
from cluster.run.assembly import assemble, make_pools, open_records
from cluster.run.places.placement import Bundle
from cluster.run.places.waiting import lack_of
from cluster.run.processes import FleetObserver, Processes
from cluster.run.workers import Fleet


class ControllerActor:
    """An asyncio actor.

    Args:
        config: the run's configuration.
        run_dir: absolute path of the run's folder.
        tokenizer_path: folder or hub id of the policy's tokenizer.
        fleet: the other actors.
        driver_node: id of the node that the driver is on; None where nobody polls.
    """

    def __init__(
        self, config: RunConfig, run_dir: str, tokenizer_path: str, fleet: Fleet, driver_node: str | None = None
    ) -> None:
        self._config, self._folder, self._tokenizer_path, self._fleet = config, Path(run_dir), tokenizer_path, fleet
        is_apart = driver_node is not None and driver_node != ray.get_runtime_context().get_node_id()
        self._lease = Lease(config.recovery.controller_lease_s) if is_apart else None
        self._observer = FleetObserver()
        self._pools: tuple[RolloutPool, RewardPool] | None = None

    def load_prompts(self) -> None:
        """Read and render the prompts, for which no other worker is needed.

        Apart from the constructor, so that errors come back as they are.
        """
        self._prompts = load_prompts(self._config, self._tokenizer_path)

    def prepare(self, step: int, state: dict[str, Any] | None, learners: Sequence[Any]) -> bool:
        """Put everything together, after :meth:`load_prompts`; again after :meth:`hold`, for a further attempt.

        Returns whether it has a lease: on the driver's own host it needs none, since neither can be lost alone, and a
        driver that is suspended there for a while costs nothing.

        Args:
            step: updates already done, by the checkpoint to go on from.
            state: the controller's part of that checkpoint, or None without one: what earlier attempts did is undone.
            learners: actors of the learner ranks.
        """
        config, folder, prompts = self._config, self._folder, self._prompts
        self._fleet.learners = list(learners)
        self._records = open_records(config=config, folder=folder, prompts=prompts, step=step, state=state)
        for remark in prompts.remarks if self._pools is None else ():
            self._records.tell("data", step, remark, "warning")
        self._processes = Processes(self._records.status, folder / "stacks")
        self._observer.follow(self._records, self._processes)
        self._pools = self._pools or make_pools(config, self._fleet, self._observer)
        self._controller = assemble(
            config=config,
            folder=folder,
            fleet=self._fleet,
            prompts=prompts,
            records=self._records,
            pools=self._pools,
            step=step,
            state=state,
        )
        return self._lease is not None

    async def run(self) -> dict[str, Any]:
        """Train; returns the last checkpoint's path and the accuracies before and after."""
        pool, _ = self._made_pools()
        await self._processes.register(self._fleet.others() | pool.workers_by_name)
        recovery = self._config.recovery
        watchdog = Watchdog(self._records.status, recovery.stall_timeout_s, self._processes.dump_stacks, self._on_stuck)
        loop = asyncio.get_running_loop()
        watching = [loop.create_task(watchdog.run()), loop.create_task(self._staffing(pool).run())]
        if self._lease is not None:
            self._lease.renew()
            watching.append(loop.create_task(self._end_when_abandoned(self._lease)))
        self._running = loop.create_task(self._controller.run())
        try:
            path = await self._running
        except asyncio.CancelledError:
            raise self._ended_by from None
        finally:
            for task in watching:
                task.cancel()
            self._records.ledger.close()
        return {
            "checkpoint": path,
            "step": self._controller.step,
            "initial_accuracy": self._controller.initial_accuracy,
            "final_accuracy": self._controller.final_accuracy,
        }

    def _staffing(self, pool: RolloutPool) -> Staffing:
        """Who sees to it that there are as many rollout workers as are wanted."""
        rollout = self._config.rollout
        return Staffing(
            pool=pool,
            fewest=rollout.fewest_workers,
            most=rollout.most_workers,
            order=lambda: read_order(self._folder),
            lack=self._lack,
            status=self._records.status,
            tell=self._records.tell,
            timeout_s=self._config.recovery.resource_timeout_s,
        )

    def _lack(self, names: Sequence[str]) -> str:
        """What rollout workers without room need, and what there is."""
        try:
            return lack_of(self._fleet.rooms.of(names))
        except RayError as error:  # a line that says less
            return f"what there is cannot be told: {type(error).__name__}"

    async def hold(self) -> None:
        """The run stands still, since a learner rank was lost: its successor gets room before new rollout workers."""
        pool, _ = self._made_pools()
        pool.hold()
        for sink in self._records.sinks:
            with suppress(Exception):  # the next attempt opens others
                sink.close()

    async def make_room(self, needed: Sequence[Bundle]) -> list[str]:
        """Let rollout workers go that the run can do without, where that makes room; returns their names.

        Args:
            needed: what each process needs that has no room.
        """
        pool, _ = self._made_pools()
        spare = len(pool.workers_by_name) - self._config.rollout.fewest_workers
        if spare <= 0:
            return []
        leaving = await asyncio.to_thread(self._fleet.rooms.who_makes_room, needed, spare)
        names = [f"rollout-{index}" for index in leaving]
        pool.dismiss(names)
        return names

    def _made_pools(self) -> tuple[RolloutPool, RewardPool]:
        assert self._pools is not None, "prepare() makes them"
        return self._pools

    async def poll(self, cursor: int, timeout_s: float) -> tuple[list[Entry], tuple[int, int]]:
        """Journal entries from ``cursor`` on (waits for one), and rollouts done of how many. Renews the lease."""
        if self._lease is not None:
            self._lease.renew()
        entries = await self._records.journal.read(cursor, timeout_s)
        return entries, self._controller.progress()

    async def stop(self, reason: str) -> None:
        """End the run early, with a checkpoint."""
        await self._controller.request_stop(reason)

    async def close(self, timeout_s: float) -> None:
        """Shut the engines down in order, replacements included."""
        await self._controller.close(timeout_s)

    async def _on_stuck(self, report: str) -> None:
        """The watchdog saw nothing move: tell, and end the attempt."""
        self._records.tell("stall", self._records.status.step, report, "error")
        self._end(Stalled(report))

    async def _end_when_abandoned(self, lease: Lease) -> None:
        """Whoever has started this may have been cut off from here, and start another controller."""
        await lease.run_out()
        limit = self._config.recovery.controller_lease_s
        text = f"nobody has asked for the controller for {limit:g} s (recovery.controller_lease_s); it stops"
        self._records.tell("stop", self._records.status.step, text, "error")
        self._end(Abandoned(text))

    def _end(self, reason: Recoverable) -> None:
        self._ended_by = reason
        self._running.cancel()


def create_controller(config: RunConfig, run_dir: Path, fleet: Fleet) -> Any:
    """Start the controller's actor beside the driver, so that the loss of another host does not take it."""
    here = ray.get_runtime_context().get_node_id()
    # Not soft: that takes another node where this one has no CPUs for Ray, and there is always room for none.
    beside = NodeAffinitySchedulingStrategy(here, soft=False)
    actor = ray.remote(ControllerActor).options(num_cpus=0, max_concurrency=1000, scheduling_strategy=beside)
    return actor.remote(config, str(run_dir), absolute_model_path(config.model.path), fleet, here)
