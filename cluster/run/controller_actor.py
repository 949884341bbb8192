"""The controller's actor: puts a :class:`actors.loop.controller.Controller` together in its own process and runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from actors.faults import Stalled
from actors.guards.guards import Guards
from actors.guards.trust import RewardTrust
from actors.ledger.ledger import Ledger, LedgerError
from actors.loop.activity import ActivityClock
from actors.loop.controller import Controller
from actors.loop.generation import FailureLimits, Generation
from actors.loop.group_buffer import GroupBuffer
from actors.loop.parts import Records, Workers
from actors.loop.pseudo_labels import PseudoLabels
from actors.pools.learner_ranks import LearnerRanks
from actors.pools.loss import PoolObserver, Replacing
from actors.pools.reward_pool import RewardPool
from actors.pools.rollout_pool import RolloutPool
from actors.pools.suspects import Suspects
from actors.pools.weight_sync import NcclRoute, ObjectStoreRoute, WeightSync
from actors.processes.watchdog import Watchdog
from actors.recording.disk_space import DiskSpace
from actors.recording.event_log import EventLog
from actors.recording.journal import Entry, Journal, Level
from actors.recording.run_status import RunStatus
from actors.recording.sinks import JsonlSink, Sink, TensorBoardSink
from actors.recording.trajectory_log import TrajectoryLog
from cluster.config.paths import absolute_model_path
from cluster.config.prompts import load_prompts
from cluster.config.run_config import RunConfig
from cluster.run.processes import Processes
from cluster.run.workers import RewardFactory, RolloutFactory, uses_nccl
from cluster.run.workers import Workers as StartedWorkers
from learner.storage.disk_full import is_disk_full
from rollout.component import UserError
from rollout.data.prompt_source import PromptSource
from rollout.sampling.weight_check import Canary, canary_tolerance

LEDGER = "ledger.sqlite"


@dataclass(frozen=True, slots=True)
class Cast:
    """The actors that a controller works with.

    Attributes:
        rollouts, rewards, learners: their handles.
        rollout_factory, reward_factory: make others in the place of lost ones.
    """

    rollouts: list[Any]
    rewards: list[Any]
    learners: list[Any]
    rollout_factory: RolloutFactory
    reward_factory: RewardFactory

    def named(self) -> dict[str, Any]:
        """Handles by the names that messages use."""
        kinds = {"rollout": self.rollouts, "reward": self.rewards, "learner": self.learners}
        return {f"{kind}-{i}": handle for kind, handles in kinds.items() for i, handle in enumerate(handles)}


class ControllerActor(PoolObserver):
    """An asyncio actor.

    Args:
        config: the run's configuration.
        run_dir: absolute path of the run's folder.
        tokenizer_path: folder or hub id of the policy's tokenizer.
        cast: the other actors.
    """

    def __init__(self, config: RunConfig, run_dir: str, tokenizer_path: str, cast: Cast) -> None:
        self._config, self._run_dir, self._tokenizer_path, self._cast = config, Path(run_dir), tokenizer_path, cast

    def prepare(self, step: int, state: dict[str, Any] | None) -> None:
        """Put everything together. Apart from the constructor, so that its errors come back as they are.

        Args:
            step: updates already done, by the checkpoint to go on from.
            state: the controller's part of that checkpoint, or None without one: what earlier attempts did is undone.
        """
        config, folder, tokenizer_path = self._config, self._run_dir, self._tokenizer_path
        prompts = load_prompts(config, tokenizer_path)
        source, held_out = prompts.training, prompts.held_out
        self._journal, self._events = Journal(), EventLog(folder / "events.jsonl")
        self._status = RunStatus(folder / "status.json")
        self._status.step = step
        for remark in prompts.remarks:
            self._tell("data", step, remark, "warning")
        is_new = not (folder / LEDGER).exists()
        self._ledger = _open_ledger(folder / LEDGER, source, config, step)
        self._processes = Processes(self._status, folder / "stacks")
        pool, rewards, learner = self._rollout_pool(), self._reward_pool(), self._learner_group()
        self._pool, training, disk = pool, config.training, self._disk_space()
        sinks = _sinks(config, folder, None if is_new else step if state else -1)
        records = Records(
            self._ledger, self._journal, self._tell, self._status, sinks, _trajectory_log(config, folder), disk
        )
        buffer = GroupBuffer(training.prompts_per_step, training.max_staleness, training.num_steps, step)
        clock, limits = ActivityClock(), _failure_limits(config)
        parts = (buffer, pool, rewards, clock, self._ledger, self._tell, self._status, disk)
        labels, partial_groups = _pseudo_labels(config), training.partial_groups
        generation = Generation(source, training.samples_per_prompt, limits, *parts, labels, partial_groups)
        self._controller = Controller(
            training,
            config.cluster.step_timeout_s,
            generation,
            buffer,
            clock,
            Workers(pool, rewards, learner, _weight_sync(config, learner, pool, source)),
            records,
            Guards(config.guards, state["guards"] if state else None),
            RewardTrust(config.trust, config.reward.compared_share, config.seed, (state or {}).get("trust")),
            held_out,
            state,
        )

    async def run(self) -> dict[str, Any]:
        """Train; returns the last checkpoint's path and the accuracies before and after."""
        await self._processes.register(self._cast.named())
        watchdog = Watchdog(
            self._status, self._config.recovery.stall_timeout_s, self._processes.dump_stacks, self._on_stuck
        )
        watching = asyncio.get_running_loop().create_task(watchdog.run())
        self._running = asyncio.get_running_loop().create_task(self._controller.run())
        try:
            path = await self._running
        except asyncio.CancelledError:
            raise Stalled(self._stuck) from None
        finally:
            watching.cancel()
            self._ledger.close()
        return {
            "checkpoint": path,
            "step": self._controller.step,
            "initial_accuracy": self._controller.initial_accuracy,
            "final_accuracy": self._controller.final_accuracy,
        }

    async def poll(self, cursor: int, timeout_s: float) -> tuple[list[Entry], tuple[int, int]]:
        """Journal entries from ``cursor`` on (waits for one), and rollouts done of how many."""
        entries = await self._journal.read(cursor, timeout_s)
        return entries, self._controller.progress()

    async def stop(self, reason: str) -> None:
        """End the run early, with a checkpoint."""
        await self._controller.request_stop(reason)

    async def close(self, timeout_s: float) -> None:
        """Shut the engines down in order, replacements included."""
        await self._pool.stop(timeout_s)

    async def _on_stuck(self, report: str) -> None:
        """The watchdog saw nothing move: tell, and end the attempt."""
        self._tell("stall", self._status.step, report, "error")
        self._stuck = report
        self._running.cancel()

    def _rollout_pool(self) -> RolloutPool:
        recovery = self._config.recovery
        replacing = Replacing(
            self._cast.rollout_factory, self._config.cluster.start_timeout_s, recovery.max_worker_losses
        )
        return RolloutPool(
            self._cast.rollouts,
            self._config.rollout.max_concurrent_requests,
            recovery.request_timeout_s,
            replacing,
            Suspects(recovery.max_quarantined_prompts),
            self,
        )

    def _reward_pool(self) -> RewardPool:
        reward = self._config.reward
        options = (reward.deadline_s, reward.error_reward, reward.max_concurrent_requests, self)
        return RewardPool(self._cast.rewards, self._cast.reward_factory, *options)

    def _learner_group(self) -> LearnerRanks:
        config = self._config
        return LearnerRanks(
            self._cast.learners,
            self._run_dir / "checkpoints",
            config.training.keep_checkpoints,
            config.learner.critic_warmup_steps,
            config.cluster.step_timeout_s,
        )

    def _disk_space(self) -> DiskSpace:
        def tell(text: str) -> None:
            self._tell("disk", self._status.step, text, "warning")

        return DiskSpace(self._config.recovery.disk_full_timeout_s, tell, self._status.progress)

    def worker_event(self, worker: str, text: str) -> None:
        """See :class:`actors.pools.loss.PoolObserver`."""
        self._status.note(worker, text)
        self._tell("worker", self._status.step, f"{worker} {text}", "warning", worker=worker)

    def worker_started(self, worker: str, handle: Any) -> None:
        """See :class:`actors.pools.loss.PoolObserver`."""
        self._registering = asyncio.get_running_loop().create_task(self._processes.register({worker: handle}))

    def request_reissued(self, trajectory_id: str, cause: str) -> None:
        """See :class:`actors.pools.loss.PoolObserver`."""
        with suppress(LedgerError):  # a full disk costs one count here; whatever changes a state waits for space
            self._ledger.reissue(trajectory_id, cause)

    def prompt_quarantined(self, prompt_id: str, reason: str) -> None:
        """See :class:`actors.pools.loss.PoolObserver`."""
        text = f"prompt {prompt_id} is set aside: {reason}"
        self._tell("quarantine", self._status.step, text, "warning", prompt_id=prompt_id)

    def _tell(self, kind: str, step: int, text: str, level: Level = "info", **details: Any) -> None:
        """To whoever watches, and to events.jsonl."""
        self._journal.add("event", step, text, level=level)
        with suppress(OSError):  # the disk may be what the event is about
            self._events.write(kind, step, text, level, **details)


def _open_ledger(path: Path, source: PromptSource, config: RunConfig, step: int) -> Ledger:
    """The run's ledger, as it was when ``step`` updates had been done.

    Raises:
        UserError: the disk is full.
        LedgerError: anything else is wrong with the file.
    """
    is_new = step == 0 and not path.exists()  # there is nothing to go back from
    try:
        ledger = Ledger(path, num_prompts=len(source), samples_per_prompt=config.training.samples_per_prompt)
        if not is_new:
            ledger.rollback(step)
    except LedgerError as error:
        if not is_disk_full(error):
            raise
        raise UserError(f"the disk is full, the ledger cannot be opened: {error}. Make space, then --resume") from error
    return ledger


def _failure_limits(config: RunConfig) -> FailureLimits:
    per_step = config.training.trajectories_per_step
    return FailureLimits(config.reward.max_error_frac * per_step, config.reward.max_abstain_frac * per_step, per_step)


def _pseudo_labels(config: RunConfig) -> PseudoLabels | None:
    options = config.reward.pseudo_labels
    return PseudoLabels(options, config.seed) if options is not None else None


def _weight_sync(config: RunConfig, learner: LearnerRanks, pool: RolloutPool, source: PromptSource) -> WeightSync:
    """The route of weights; its canary is the first training prompt."""
    canary = None
    if config.rollout.verify_weights:
        tolerance = config.rollout.canary_tolerance or canary_tolerance(config.rollout.dtype, config.model.dtype)
        token_ids = source.at(0)[1].token_ids
        canary = Canary(token_ids if len(token_ids) > 1 else token_ids * 2, tolerance)
    timeout_s = config.cluster.step_timeout_s
    if uses_nccl(config):
        return NcclRoute(learner, pool, config.rollout.tensor_parallel_size, canary, timeout_s)
    return ObjectStoreRoute(learner, pool, canary, timeout_s)


def _sinks(config: RunConfig, folder: Path, last_valid_step: int | None) -> Sequence[Sink]:
    """Writers of metrics; those of later steps than ``last_valid_step`` are removed, -1 for all of them."""
    sinks: list[Sink] = [JsonlSink(folder / "metrics.jsonl", last_valid_step)]
    if config.logging.tensorboard:
        sinks.append(TensorBoardSink(folder / "tensorboard", last_valid_step))
    return sinks


def _trajectory_log(config: RunConfig, folder: Path) -> TrajectoryLog:
    logging = config.logging
    return TrajectoryLog(folder / "trajectories", logging.trajectory_samples_per_step, logging.keep_trajectory_files)


def create_controller(config: RunConfig, run_dir: Path, workers: StartedWorkers) -> Any:
    """Start the controller's actor."""
    cast = Cast(workers.rollouts, workers.rewards, workers.learners, workers.rollout_factory, workers.reward_factory)
    actor = ray.remote(ControllerActor).options(num_cpus=0, max_concurrency=1000)
    return actor.remote(config, str(run_dir), absolute_model_path(config.model.path), cast)
