"""The controller: the whole loop. Bulk data stays in the object store; here are references and small records."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from actors.activity import ActivityClock
from actors.config import TrainingConfig
from actors.evaluation import evaluate
from actors.generation import Generation
from actors.group_buffer import Group, GroupBuffer
from actors.journal import Journal
from actors.reward_pool import RewardPool
from actors.rollout_pool import RolloutPool
from actors.step_metrics import EngineRates, activity_metrics, rollout_metrics
from actors.trajectory_log import TrajectoryLog
from actors.weight_sync import WeightSync
from rollout.trajectory import Prompt


class MetricSink(Protocol):
    """Takes the metrics of each step."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one step."""
        ...

    def close(self) -> None:
        """Flush and release."""
        ...


class Learner(Protocol):
    """All learner ranks as one."""

    async def update(self, groups: Sequence[Group], step: int) -> dict[str, float]:
        """Train on the groups; returns metrics."""
        ...

    async def save(self, step: int, controller_state: dict[str, Any]) -> str:
        """Write a checkpoint; returns its path."""
        ...


class StopRequested(Exception):
    """Somebody asked the run to end early."""


class Controller:
    """Streams prompts to the rollout workers, scored groups to the learner, and weights back.

    Args:
        config: see :class:`TrainingConfig`.
        step_timeout_s: longest wait for a batch, in seconds.
        generation, buffer, clock: the producing half and what connects it to this one.
        pool, rewards, learner, sync: the workers.
        eval_prompts: held-out prompts by split.
        sinks: where metrics go.
        trajectory_log: where samples of trajectories go.
        journal: what a display reads.
        state: ``controller`` state of the checkpoint to go on from, or None.
    """

    def __init__(
        self,
        config: TrainingConfig,
        step_timeout_s: float,
        generation: Generation,
        buffer: GroupBuffer,
        clock: ActivityClock,
        pool: RolloutPool,
        rewards: RewardPool,
        learner: Learner,
        sync: WeightSync,
        eval_prompts: Mapping[str, Sequence[Prompt]],
        sinks: Sequence[MetricSink],
        trajectory_log: TrajectoryLog,
        journal: Journal,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self._config = config
        self._step_timeout_s = step_timeout_s
        self._generation, self._buffer, self._clock = generation, buffer, clock
        self._pool, self._rewards, self._learner, self._sync = pool, rewards, learner, sync
        self._eval_prompts = eval_prompts
        self._sinks = sinks
        self._trajectory_log = trajectory_log
        self._engine_rates = EngineRates()
        self.step = buffer.version
        self.initial_accuracy: dict[str, float] = dict(state["initial_accuracy"]) if state else {}
        self.final_accuracy: dict[str, float] = {}
        self.journal = journal

    async def run(self) -> str:
        """Train to the end or until :meth:`request_stop`; returns the path of the last checkpoint."""
        await self._sync.publish(self.step)
        if not self.initial_accuracy:
            self.initial_accuracy = await self._evaluate()
        self._step_began = time.monotonic()
        self._clock.take()
        self._generation.start()
        try:
            while self.step < self._config.num_steps:
                groups = await self._buffer.take(self._step_timeout_s)
                await self._train(groups)
                if self._is_due(self._config.checkpoint_every_steps):
                    await self._save()
        except StopRequested as reason:
            self.journal.add("event", self.step, f"stopping after step {self.step}: {reason}")
        finally:
            await self._generation.stop()
        path = await self._save()
        for sink in self._sinks:
            sink.close()
        return path

    async def request_stop(self, reason: str) -> None:
        """Make :meth:`run` finish the update in progress, if any, write a checkpoint and return."""
        await self._buffer.fail(StopRequested(reason))

    async def _train(self, groups: list[Group]) -> None:
        """One step: update the learner, publish its weights, evaluate if due, report."""
        taken = time.monotonic()
        with self._clock.during("train"):
            learner_metrics = await self._learner.update(groups, self.step)
        trained = time.monotonic()
        self._generation.mark_trained(groups)
        batch_metrics = rollout_metrics(groups, self.step)
        self.step += 1
        sync = await self._sync.publish(self.step)
        await self._buffer.advance(self.step)
        metrics = {
            **batch_metrics,
            **learner_metrics,
            "time/wait_s": taken - self._step_began,
            "time/train_s": trained - taken,
            "time/sync_export_s": sync.export_s,
            "time/sync_load_s": sync.load_s,
        }
        is_last = self.step == self._config.num_steps
        if is_last or self._is_due(self._config.eval_every_steps):
            accuracy = await self._evaluate(metrics)
            self.final_accuracy = accuracy if is_last else {}
        await self._report(groups, metrics)

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0 and self.step < self._config.num_steps

    async def _evaluate(self, metrics: dict[str, float] | None = None) -> dict[str, float]:
        """Clean accuracy by split; added to ``metrics``, or recorded by itself where there is no step to add to."""
        begin = time.monotonic()
        accuracy = await evaluate(self._pool, self._rewards, self._eval_prompts)
        values = {f"eval/{split}/accuracy": value for split, value in accuracy.items()}
        values["time/eval_s"] = time.monotonic() - begin
        if metrics is not None:
            metrics |= values
        else:
            self._write(values)
        self.journal.add("eval", self.step, values=accuracy)
        return accuracy

    async def _report(self, groups: Sequence[Group], metrics: dict[str, float]) -> None:
        now = time.monotonic()
        seconds, self._step_began = now - self._step_began, now
        engine_metrics = self._engine_rates.metrics(await self._pool.every("stats"), seconds)
        metrics |= engine_metrics | activity_metrics(self._clock.take()) | self._generation.take_counts()
        metrics["time/step_s"] = seconds
        metrics["rollout/tokens_per_s"] = metrics["rollout/num_response_tokens"] / seconds
        self._write(metrics)
        self.journal.add("step", self.step, values=metrics)
        await self._trajectory_log.write(self.step, groups)

    def _write(self, metrics: Mapping[str, float]) -> None:
        for sink in self._sinks:
            sink.write(self.step, metrics)

    async def _save(self) -> str:
        begin = time.monotonic()
        state = {**self._generation.state(), "initial_accuracy": self.initial_accuracy}
        path = await self._learner.save(self.step, state)
        self.journal.add("event", self.step, f"checkpoint {path} ({time.monotonic() - begin:.1f} s)")
        return path

    def progress(self) -> tuple[int, int]:
        """Trajectories scored since the last step, and how many a step takes."""
        return self._generation.num_scored, self._config.trajectories_per_step
