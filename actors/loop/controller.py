"""The controller: the whole loop. Bulk data stays in the object store; here are references and small records."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from actors.faults import GuardStop, RollbackRequested, Stalled, StopRequested
from actors.groups import Group
from actors.guards.guards import GuardFinding, Guards
from actors.guards.trust import RewardTrust
from actors.loop.activity import ActivityClock
from actors.loop.config import TrainingConfig
from actors.loop.evaluation import EvaluationPlan, evaluate
from actors.loop.generation import Generation
from actors.loop.gold_labels import DisputedLabels
from actors.loop.group_buffer import GroupBuffer
from actors.loop.records import Records
from actors.loop.step_metrics import EngineRates, activity_metrics, rollout_metrics, update_metrics
from actors.pools.learner_ranks import LearnerRanks
from actors.pools.reward_pool import RewardPool
from actors.pools.rollout_pool import RolloutPool
from actors.pools.weight_sync import WeightSync
from actors.recording.journal import Level
from learner.update.result import TokenTrace
from rollout.trajectory import Prompt


class Controller:
    """Streams prompts to the rollout workers, scored groups to the learner, and weights back.

    Args:
        config: see :class:`TrainingConfig`.
        step_timeout_s: longest wait for a batch, in seconds.
        generation, buffer, clock: the producing half and what connects it to this one.
        pool, rewards, learner, sync: who does the work.
        records: see :class:`Records`.
        guards: watch for numbers that go wrong.
        trust: how far the reward can be trusted, from trajectories whose true score is known.
        eval_prompts: held-out prompts by split.
        gold_labels: asks for true scores of a batch's samples; None where none are, or only at random.
        state: ``controller`` state of the checkpoint to go on from, or None.
    """

    def __init__(
        self,
        *,
        config: TrainingConfig,
        step_timeout_s: float,
        generation: Generation,
        buffer: GroupBuffer,
        clock: ActivityClock,
        pool: RolloutPool,
        rewards: RewardPool,
        learner: LearnerRanks,
        sync: WeightSync,
        records: Records,
        guards: Guards,
        trust: RewardTrust,
        eval_prompts: Mapping[str, Sequence[Prompt]],
        eval_plan: EvaluationPlan | None = None,
        gold_labels: DisputedLabels | None = None,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self._config = config
        self._step_timeout_s = step_timeout_s
        self._generation, self._buffer, self._clock = generation, buffer, clock
        self._pool, self._rewards, self._learner, self._sync = pool, rewards, learner, sync
        self._records, self._status = records, records.status
        self._guards, self._trust = guards, trust
        self._eval_prompts, self._eval_plan = eval_prompts, eval_plan
        self._gold_labels = gold_labels
        self._engine_rates = EngineRates()
        self._step_began = time.monotonic()
        self.step = self._saved_step = buffer.version
        self.initial_accuracy: dict[str, float] = dict(state["initial_accuracy"]) if state else {}
        self.final_accuracy: dict[str, float] = {}

    async def run(self) -> str:
        """Train to the end or until :meth:`request_stop`; returns the path of the last checkpoint.

        Raises:
            Recoverable: new processes can go on from the newest checkpoint.
            Exception: anything else ends the run.
        """
        self._status.step = self.step
        with self._status.stage("sync"):
            await self._sync.publish(self.step)
        if not self.initial_accuracy:
            self.initial_accuracy = await self._evaluate()
        self._step_began = time.monotonic()
        self._clock.take()
        self._generation.start()
        try:
            while self.step < self._config.num_steps:
                await self._train(await self._next_batch())
                if self._learner.save_is_written:
                    await self._finish_save()
                if self._is_due(self._config.checkpoint_every_steps):
                    await self._begin_save()
        except StopRequested as reason:
            self._tell("stop", f"stopping after step {self.step}: {reason}")
        except Exception:
            with suppress(Exception):  # a checkpoint that was begun is worth completing; the first error counts
                await self._learner.finish_save()
            raise
        finally:
            await self._generation.stop()
        await self._begin_save()
        path = await self._finish_save()
        for sink in self._records.sinks:
            sink.close()
        return path

    async def request_stop(self, reason: str) -> None:
        """Make :meth:`run` finish the update in progress, if any, write a checkpoint and return."""
        await self._buffer.fail(StopRequested(reason))

    async def _next_batch(self) -> list[Group]:
        with self._status.stage("wait", lambda: self._buffer.open_group_ids):
            while True:
                try:
                    return await self._buffer.take(self._step_timeout_s)
                except TimeoutError as error:
                    if not (self._records.disk.is_waited_for or self._pool.lacks_room):  # they have limits, and tell
                        raise Stalled(str(error)) from error

    async def _train(self, groups: list[Group]) -> None:
        """One step: update the learner, publish its weights, evaluate if due, report."""
        taken = time.monotonic()
        if reason := self._refused(groups):
            await self._generation.give_up(groups, reason)
            return
        await self._label(groups)
        with self._clock.during("train"), self._status.stage("train", [group.group_id for group in groups]):
            result = await self._learner.update(groups, self.step, self._trust.rates)
        if result.skipped:
            self._tell("guard", f"step {self.step + 1}: the batch was not trained on: {result.skipped}")
            await self._generation.give_up(groups, result.skipped)
            self._act(self._guards.after_update(update_metrics(result), self.step + 1, result.notes))
            return
        trained = time.monotonic()
        await self._commit(groups)
        with self._status.stage("sync"):
            sync = await self._sync.publish(self.step)
        await self._buffer.advance(self.step)
        metrics = {
            **rollout_metrics(groups, self.step - 1),
            **update_metrics(result),
            **sync.metrics(),
            "time/wait_s": taken - self._step_began,
            "time/train_s": trained - taken,
        }
        is_last, accuracy = self.step == self._config.num_steps, dict[str, float]()
        if is_last or self._is_due(self._config.eval_every_steps):
            accuracy = await self._evaluate(metrics)
            self.final_accuracy = accuracy if is_last else {}
        doubts = self._trust.observe(self.step, groups, metrics, self._first_split(accuracy))
        metrics |= self._trust.metrics()
        await self._report(groups, metrics, result.traces)
        self._act(doubts, "trust")
        self._act(self._guards.after_update(metrics, self.step, result.notes))

    async def _label(self, groups: Sequence[Group]) -> None:
        """Ask for true scores, and write down which ones: what is trained on them must be known afterwards."""
        if self._gold_labels is None:
            return
        with self._status.stage("label"):
            labelled = await self._gold_labels.label(groups)
        if not labelled:
            return
        ledger = self._records.ledger
        changes = [partial(ledger.label, name, score) for name, score in labelled.items()]
        await self._records.disk.write(lambda: ledger.together(changes), "the ledger")

    def _refused(self, groups: Sequence[Group]) -> str:
        """Why the batch must not be trained on; empty if it may."""
        samples = [sample for group in groups for sample in group.samples]
        rewards = [sample.reward.observed for sample in samples if sample.reward.observed is not None]
        lengths = [sample.summary.num_response_tokens for sample in samples]
        return self._act(self._guards.before_update(rewards, lengths, self.step + 1))

    def _first_split(self, accuracy: Mapping[str, float]) -> tuple[float, int] | None:
        """Accuracy on the first held-out split, which is in-domain, and its size."""
        return next(((mean, len(self._eval_prompts[split])) for split, mean in accuracy.items()), None)

    def _act(self, findings: Iterable[GuardFinding], kind: str = "guard") -> str:
        """Do what the guards ask for; returns the reason if the batch is to be skipped.

        Raises:
            GuardStop, RollbackRequested: the run ends or goes back.
        """
        skip = ""
        for finding in findings:
            text = f"{kind} {finding.guard}: {finding.text}"
            facts = {kind: finding.guard, "action": finding.action, "value": finding.value, "limit": finding.limit}
            self._tell(kind, text, level="warning", **facts)
            if finding.action == "stop":
                raise GuardStop(text)
            if finding.action == "rollback":
                raise RollbackRequested(text)
            if finding.action == "skip":
                skip = skip or text
        return skip

    async def _commit(self, groups: Sequence[Group]) -> None:
        """The step is done: its trajectories are trained on, permanently and once."""
        ids = [sample.summary.trajectory_id for group in groups for sample in group.samples]
        step = self.step + 1
        await self._records.disk.write(lambda: self._records.ledger.commit_step(step, ids), "the ledger")
        self.step = self._status.step = step

    def _is_due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0 and self.step < self._config.num_steps

    async def _evaluate(self, metrics: dict[str, float] | None = None) -> dict[str, float]:
        """Clean accuracy by split.

        All that was measured is added to ``metrics``, or recorded by itself where there is no step to add to.
        """
        begin = time.monotonic()
        with self._status.stage("evaluate"):
            found = await evaluate(
                self._pool,
                self._rewards,
                self._eval_prompts,
                lambda text: self._tell("evaluation", text, "warning"),
                self._eval_plan,
            )
        values = {f"eval/{split}/{name}": value for split, means in found.items() for name, value in means.items()}
        accuracy = {split: means["accuracy"] for split, means in found.items()}
        values["time/eval_s"] = time.monotonic() - begin
        if metrics is not None:
            metrics |= values
        else:
            await self._write(values)
        self._records.journal.add("eval", self.step, values=values)
        return accuracy

    async def _report(
        self, groups: Sequence[Group], metrics: dict[str, float], traces: Mapping[str, TokenTrace]
    ) -> None:
        with self._status.stage("report"):
            now = time.monotonic()
            seconds, self._step_began = now - self._step_began, now
            engine_metrics = self._engine_rates.metrics(await self._pool.every("stats"), seconds)
            metrics |= engine_metrics | activity_metrics(self._clock.take()) | self._generation.take_counts()
            metrics["time/step_s"] = seconds
            metrics["rollout/tokens_per_s"] = metrics["rollout/num_response_tokens"] / seconds
            metrics["rollout/num_replaced_workers"] = float(self._pool.num_replaced)
            await self._write(metrics)
            self._records.meters.batch(groups, self.step - 1)
            self._records.journal.add("step", self.step, values=metrics)
            log = self._records.trajectory_log
            await self._records.disk.run(lambda: log.write(self.step, groups, traces), "the trajectory log")

    async def _write(self, metrics: Mapping[str, float]) -> None:
        self._records.ledger.fence.check()
        for sink in self._records.sinks:
            await self._records.disk.write(lambda sink=sink: sink.write(self.step, metrics), "metrics")  # type: ignore[misc]

    async def _begin_save(self) -> None:
        """Begin to write a checkpoint of this step, after the one before is complete."""
        await self._finish_save()
        with self._status.stage("checkpoint"):
            await self._learner.begin_save(self.step, self._state())
        self._saved_step = self.step

    async def _finish_save(self) -> str:
        """Wait for the checkpoint that is being written, if any; returns its path."""
        if not self._learner.saving:
            return ""
        begin = time.monotonic()
        with self._status.stage("checkpoint"):
            path = await self._records.disk.run(self._learner.finish_save, "a checkpoint")
        ledger, step = self._records.ledger, self._saved_step
        await self._records.disk.write(lambda: ledger.mark_checkpoint(step), "the ledger")
        self._tell("checkpoint", f"checkpoint {path} (waited {time.monotonic() - begin:.1f} s)")
        return path

    def _state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the controller; the ledger has the rest."""
        kept = {"initial_accuracy": self.initial_accuracy, "guards": self._guards.state(), "trust": self._trust.state()}
        return kept if self._gold_labels is None else kept | {"gold_labels": self._gold_labels.state()}

    def _tell(self, kind: str, text: str, level: Level = "info", **details: Any) -> None:
        self._records.tell(kind, self.step, text, level, **details)

    async def close(self, timeout_s: float) -> None:
        """Shut the engines down in order, replacements included."""
        await self._pool.stop(timeout_s)

    def progress(self) -> tuple[int, int]:
        """Trajectories scored since the last step, and how many a step takes."""
        return self._generation.num_scored, self._config.trajectories_per_step
