"""All learner ranks as one, as the controller and the weight routes see them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors.calls.chunks import Packing
from actors.faults import LearnerLost, WorkerError, WorkerLost
from actors.groups import Group
from actors.pools.checkpoint_saver import CheckpointSaver
from actors.pools.ranks import Ranks
from learner.storage.manifest import Guard
from learner.update.result import UpdateResult
from rollout.sampling.weight_check import TensorFact
from rollout.trajectory import Label

NOTICE_DEATH_S = 5.0
"""How long to look for a dead rank after another one has reported an error."""


class LearnerRanks:
    """Trains, exports weights and saves with all ranks at once.

    Args:
        workers: actor handles of :class:`actors.workers.learner_worker.LearnerWorker`, in rank order, set up.
        checkpoints: folder of the run's checkpoints.
        keep_checkpoints: newest ones that stay.
        critic_warmup_steps: first steps that leave the policy as it is.
        timeout_s: longest time one call may take.
        guard: see :class:`CheckpointSaver`.
    """

    def __init__(
        self,
        workers: Sequence[Any],
        checkpoints: Path,
        keep_checkpoints: int,
        critic_warmup_steps: int,
        timeout_s: float,
        guard: Guard,
    ) -> None:
        self._ranks = Ranks(workers, "learner")
        self._saver = CheckpointSaver(self._ranks, checkpoints, keep_checkpoints, timeout_s, guard)
        self._critic_warmup_steps = critic_warmup_steps
        self._timeout_s = timeout_s
        self._host: str | None = None

    async def update(
        self, groups: Sequence[Group], step: int, rates: tuple[float, float] | None = None
    ) -> UpdateResult:
        """Train on the groups; the result is the same on every rank.

        Args:
            groups: the batch.
            step: updates done before this one.
            rates: estimated false positive and false negative rate of the reward, for algorithms that ask for them.

        Raises:
            LearnerLost: a rank died or does not answer.
            WorkerError: a rank reported an error.
        """
        members = [(group, sample) for group in groups for sample in group.samples]
        labels = [
            Label(
                reward=sample.reward.observed,
                group_id=group.group_id,
                question_key=sample.reward.question_key,
                answer_key=sample.reward.answer_key,
                gold_label=sample.reward.gold_label,
                weight=sample.weight,
            )
            for group, sample in members
            if sample.reward.observed is not None
        ]
        packing = Packing()
        places = [packing.item(sample.trajectory) for _, sample in members]
        results: list[UpdateResult] = await self._call(
            "train", step, step < self._critic_warmup_steps, rates, labels, places, *packing.chunks
        )
        return results[0]

    async def _call(self, method: str, *arguments: Any) -> list[Any]:
        """Call all ranks; see :meth:`_answers`."""
        return await self._answers(self._ranks.start(method, *arguments), method)

    async def _answers(self, references: Sequence[Any], method: str) -> list[Any]:
        """Wait for all ranks. When one dies the others fail too, in whichever order; the dead one is to be named."""
        try:
            return await self._ranks.gather(references, method, timeout_s=self._timeout_s)
        except WorkerError as error:
            await self.raise_loss(error)
            raise

    async def raise_loss(self, error: WorkerError) -> None:
        """Raise :class:`LearnerLost` if an error, of a rank or of who works with one, comes of a rank's death."""
        is_known = isinstance(error, WorkerLost) and set(error.worker.split(", ")) <= set(self._ranks.names)
        dead = [error.worker] if is_known else await self._ranks.dead(NOTICE_DEATH_S)
        if dead:
            raise LearnerLost(f"lost {', '.join(dead)} in {error.method}: {error.reason}") from error

    async def export_weights(self, checksums: bool) -> tuple[Any, dict[str, TensorFact]]:
        """A reference to rank 0's ``{name: array}`` in the object store, and the facts of each array."""
        answers = [
            actor.export_weights.options(num_returns=2).remote(checksums)  # the arrays stay where they are
            for actor in self._ranks.actors
        ]
        facts = await self._answers([facts for _, facts in answers], "export_weights")
        return answers[0][0], facts[0]

    async def logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """Log-probability of each token given those before it under the current weights, 0.0 for the first."""
        answers = await self._call("logprobs", [list(token_ids)])
        return list(answers[0][0])

    @property
    def saving(self) -> bool:
        """Whether a save was begun that :meth:`finish_save` has not ended yet."""
        return self._saver.saving

    @property
    def save_is_written(self) -> bool:
        """Whether a save was begun and :meth:`finish_save` has nothing to wait for."""
        return self._saver.is_written

    async def begin_save(self, step: int, controller_state: dict[str, Any]) -> None:
        """Copy the state of all ranks, which then write it while training goes on; see :class:`CheckpointSaver`."""
        try:
            await self._saver.begin(step, controller_state)
        except WorkerError as error:
            await self.raise_loss(error)
            raise

    async def finish_save(self) -> str:
        """Wait for the checkpoint to be complete; returns its path. See :class:`CheckpointSaver`."""
        try:
            return await self._saver.finish()
        except WorkerError as error:
            await self.raise_loss(error)
            raise

    async def open_transfer(self, engines: list[Any], engine_world_size: int) -> str:
        """Rank 0 opens vLLM's NCCL group with all engines; why an engine was lost meanwhile, empty if none was."""
        return await self._to_engines("open_transfer", engines, engine_world_size, await self._address())

    async def send_weights(self) -> str:
        """All ranks gather, rank 0 broadcasts to that group; returns as :meth:`open_transfer` does."""
        return await self._to_engines("send_weights")

    async def send_weights_to(self, engine: Any, engine_world_size: int) -> str:
        """The same to one engine that is not in the group; returns as :meth:`open_transfer` does."""
        return await self._to_engines("send_weights_to", engine, engine_world_size, await self._address())

    async def _to_engines(self, method: str, *arguments: Any) -> str:
        answers: list[str] = await self._call(method, *arguments)
        return answers[0]

    async def _address(self) -> str:
        """Of rank 0's host. Asked for once: later calls reach the ranks in the order in which they are made here."""
        if self._host is None:
            rank_0 = Ranks(self._ranks.actors[:1], "learner")
            ((self._host, _),) = await rank_0.call("address", timeout_s=self._timeout_s)
        return self._host
