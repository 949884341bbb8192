"""The controller's actor: puts a :class:`actors.controller.Controller` together in its own process and runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actors.activity import ActivityClock
from actors.controller import Controller
from actors.generation import Generation
from actors.group_buffer import GroupBuffer
from actors.journal import Entry, Journal
from actors.learner_group import LearnerGroup
from actors.reward_pool import RewardPool
from actors.rollout_pool import RolloutPool
from actors.trajectory_log import TrajectoryLog
from actors.weight_sync import NcclRoute, ObjectStoreRoute, WeightSync
from cluster.config import RunConfig
from cluster.prompts import eval_prompts, training_prompts
from cluster.sinks import JsonlSink, Sink, TensorBoardSink
from cluster.workers import uses_nccl


class ControllerHost:
    """An asyncio actor.

    Args:
        config: the run's configuration.
        run_dir: absolute path of the run's folder.
        tokenizer_path: folder or hub id of the policy's tokenizer.
        rollouts, rewards, learners: actor handles.
        step: updates already done (by the checkpoint to go on from).
        state: the controller's part of that checkpoint, or None.
    """

    def __init__(
        self,
        config: RunConfig,
        run_dir: str,
        tokenizer_path: str,
        rollouts: list[Any],
        rewards: list[Any],
        learners: list[Any],
        step: int,
        state: dict[str, Any] | None,
    ) -> None:
        training, folder = config.training, Path(run_dir)
        pool = RolloutPool(rollouts, config.rollout.max_concurrent_requests)
        reward_pool = RewardPool(rewards)
        learner = LearnerGroup(
            learners,
            folder / "checkpoints",
            training.keep_checkpoints,
            config.learner.critic_warmup_steps,
            config.cluster.step_timeout_s,
        )
        sync: WeightSync
        if uses_nccl(config):
            sync = NcclRoute(learner, pool, config.rollout.tensor_parallel_size)
        else:
            sync = ObjectStoreRoute(learner, pool)
        buffer = GroupBuffer(training.prompts_per_step, training.max_staleness, training.num_steps, step)
        clock, journal = ActivityClock(), Journal()
        source = training_prompts(config, tokenizer_path)
        generation = Generation(
            source,
            training.samples_per_prompt,
            config.reward.max_error_frac * training.trajectories_per_step,
            buffer,
            pool,
            reward_pool,
            clock,
            journal,
            state,
        )
        resume_step = step if state else None
        sinks: list[Sink] = [JsonlSink(folder / "metrics.jsonl", resume_step)]
        if config.logging.tensorboard:
            sinks.append(TensorBoardSink(folder / "tensorboard", resume_step))
        self._controller = Controller(
            training,
            config.cluster.step_timeout_s,
            generation,
            buffer,
            clock,
            pool,
            reward_pool,
            learner,
            sync,
            eval_prompts(config, tokenizer_path),
            sinks,
            TrajectoryLog(folder / "trajectories", config.logging.trajectory_samples_per_step),
            journal,
            state,
        )

    async def run(self) -> dict[str, Any]:
        """Train; returns the last checkpoint's path and the accuracies before and after."""
        path = await self._controller.run()
        return {
            "checkpoint": path,
            "step": self._controller.step,
            "initial_accuracy": self._controller.initial_accuracy,
            "final_accuracy": self._controller.final_accuracy,
        }

    async def poll(self, cursor: int, timeout_s: float) -> tuple[list[Entry], tuple[int, int]]:
        """Journal entries from ``cursor`` on (waits for one), and rollouts done of how many."""
        entries = await self._controller.journal.read(cursor, timeout_s)
        return entries, self._controller.progress()

    async def stop(self, reason: str) -> None:
        """End the run early, with a checkpoint."""
        await self._controller.request_stop(reason)
