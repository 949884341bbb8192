"""New weights from the learner to all running engines, one interface, two routes, and the proof that they arrived.

``ObjectStoreRoute`` works everywhere: rank 0 puts the weights into Ray's object store once, each rollout worker maps
them and hands them to its engine through shared memory. ``NcclRoute`` keeps the tensors on GPUs: the learner's rank 0
broadcasts to all engines with vLLM's own NCCL weight transfer.

A version counts once :meth:`WeightSync.publish` has returned: every engine that serves has loaded it, and then gave the
canary (a fixed token sequence) the log-probabilities that the learner gives it. A difference is a
:class:`rollout.sampling.weight_check.WeightMismatchError`, which ends the run before the next training step.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from actors.faults import DataLost, WorkerDied
from actors.pools.learner_ranks import LearnerRanks
from actors.pools.loss import reply
from actors.pools.rollout_pool import RolloutPool
from rollout.sampling.engine import LoadOutcome
from rollout.sampling.weight_check import (
    IN_DOUBT_ADVICE,
    OLD_WEIGHTS_ADVICE,
    Canary,
    TensorFact,
    WeightMismatchError,
    digest,
)


@dataclass(frozen=True, slots=True)
class SyncReport:
    """One finished synchronisation.

    Attributes:
        version: weight version that every engine serves.
        export_s: seconds until the weights had left the learner.
        load_s: seconds until the last engine had loaded them, its check of the checksums left out.
        verify_s: seconds of the slowest check of checksums, and of waiting for the canary.
        canary_gap_max: largest difference of a log-probability over tokens and engines; None if it was not compared.
        weights_changed: whether the weights are others than those of the last synchronisation; None if not known.
    """

    version: int
    export_s: float
    load_s: float
    verify_s: float = 0.0
    canary_gap_max: float | None = None
    weights_changed: bool | None = None

    def metrics(self) -> dict[str, float]:
        """By metric key; what is not known is left out."""
        values = {
            "time/sync_export_s": self.export_s,
            "time/sync_load_s": self.load_s,
            "time/sync_verify_s": self.verify_s,
            "sync/canary_gap_max": self.canary_gap_max,
            "sync/weights_changed": self.weights_changed,
        }
        return {key: float(value) for key, value in values.items() if value is not None}


class WeightSync(Protocol):
    """Publishes the learner's current weights."""

    async def publish(self, version: int) -> SyncReport:
        """Return once every engine serves weight version ``version`` and was found to hold the learner's weights.

        Raises:
            WeightMismatchError: one does not.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Shipment:
    """Weights in the object store on their way to the engines, and the learner's log-probabilities of the canary."""

    version: int
    weights: Any
    facts: dict[str, TensorFact]
    logprobs: Awaitable[list[float]]

    def accept(self, worker: str, outcome: LoadOutcome) -> float:
        """Seconds of the engine's check of its tensors.

        Raises:
            WeightMismatchError: it has not loaded them.
        """
        if outcome.refused:
            raise WeightMismatchError(worker, self.version, outcome.refused, OLD_WEIGHTS_ADVICE)
        if outcome.not_loaded:
            problems = [f"{name}: left out by vLLM's loader" for name in outcome.not_loaded]
            raise WeightMismatchError(worker, self.version, problems, IN_DOUBT_ADVICE)
        return outcome.check_s

    async def load(self, canary: Canary | None, timeout_s: float, worker: str, handle: Any) -> None:
        """Bring one worker to these weights and verify that it has them."""
        loading = handle.load_weights.remote(self.weights, self.facts, self.version)
        outcome = await reply(loading, worker, "load_weights", timeout_s)
        self.accept(worker, outcome)
        if canary is not None:
            found = await reply(handle.score.remote(canary.token_ids), worker, "score", timeout_s)
            canary.check(worker, self.version, await asyncio.shield(self.logprobs), found)


class ObjectStoreRoute:
    """Weights through Ray's object store and shared memory.

    Args:
        learner, pool: between which weights go.
        canary: None leaves out both the checksums and the canary; names, shapes and number formats are always checked.
        timeout_s: longest time one call of a replacement may take.
    """

    def __init__(self, learner: LearnerRanks, pool: RolloutPool, canary: Canary | None, timeout_s: float) -> None:
        self._learner, self._pool, self._canary, self._timeout_s = learner, pool, canary, timeout_s
        self._last: str | None = None

    async def publish(self, version: int) -> SyncReport:
        """See :meth:`WeightSync.publish`."""
        begin = time.monotonic()
        # Both calls are sent before anything else can be, so both are of the same weights; the second runs while the
        # engines load.
        exporting = asyncio.ensure_future(self._learner.export_weights(self._canary is not None))
        scoring = asyncio.ensure_future(_learner_logprobs(self._learner, self._canary))
        try:
            shipment = _Shipment(version, *await exporting, scoring)
            exported = time.monotonic()
            await _learn_rounding(self._pool, self._canary, version, scoring)
            self._pool.set_weights(partial(shipment.load, self._canary, self._timeout_s))
            outcomes = await self._pool.every("load_weights", shipment.weights, shipment.facts, version)
            loaded = time.monotonic()
            check_s = max((shipment.accept(*outcome) for outcome in outcomes.items()), default=0.0)
            gap = await _canary_gap_max(self._pool, self._canary, version, await scoring)
        except DataLost as lost:  # an engine misses the weights, which were with the learner
            await self._learner.raise_loss(lost)
            raise
        finally:
            exporting.cancel()
            scoring.cancel()
        now = digest(shipment.facts) if self._canary is not None else None
        changed, self._last = None if self._last is None else now != self._last, now
        verify_s = time.monotonic() - loaded + check_s
        return SyncReport(version, exported - begin, loaded - exported - check_s, verify_s, gap, changed)


class NcclRoute:
    """Weights from GPU to GPUs by vLLM's NCCL weight transfer. Not run on GPUs yet.

    No process sees the bytes on their way, so the canary is the only check. The NCCL group is fixed when it is opened:
    a replacement gets its first weights through a group of its own, and the next :meth:`publish` closes the common
    group and opens a new one. If an update finishes while a replacement loads, that one serves the new weights under
    the old version until they are published, which is the next thing to happen.

    An engine that waits in a broadcast for weights that do not come waits for ever. So whatever goes wrong between the
    first and the last of them ends all engines at once. If it was the loss of an engine, replacements load the version
    that was being published, and the run goes on; if it was the learner, the run knows of it at once. Only the opening
    of a group may take the 300 s in which vLLM waits for all of its members.

    Args:
        learner, pool: between which weights go.
        engine_world_size: GPUs of one engine (its tensor-parallel size).
        canary: None leaves verification out.
        timeout_s: longest time one call of a replacement may take.
    """

    def __init__(
        self,
        learner: LearnerRanks,
        pool: RolloutPool,
        engine_world_size: int,
        canary: Canary | None,
        timeout_s: float,
    ) -> None:
        self._learner, self._pool, self._canary, self._timeout_s = learner, pool, canary, timeout_s
        self._engine_world_size = engine_world_size
        self._members: list[Any] = []

    async def publish(self, version: int) -> SyncReport:
        """See :meth:`WeightSync.publish`."""
        begin = time.monotonic()
        if self._canary is not None and self._canary.needs_scale and version == 0:
            await _learn_rounding(self._pool, self._canary, version, _learner_logprobs(self._learner, self._canary))
        # Before the members are listed: a replacement that is not among them then loads this version.
        self._pool.set_weights(partial(self._load_replacement, version))
        asked = self._pool.workers_by_name
        paused, there = await self._pool.every("pause"), self._pool.workers_by_name
        members = [asked[name] for name in paused if asked[name] is there.get(name)]
        try:
            problem = await self._open(members)
            opened = time.monotonic()
            problem = problem or (await self._learner.send_weights() if members else "")
        except BaseException as error:
            self._end_engines(f"the learner did not send all weights: {error}")
            raise
        if problem:
            self._end_engines(f"an engine was lost before all had their weights: {problem}")
        else:
            await self._pool.every("set_version", version)
            await self._pool.every("resume")
        loaded = time.monotonic()
        expected = await _learner_logprobs(self._learner, self._canary)
        gap = await _canary_gap_max(self._pool, self._canary, version, expected)
        return SyncReport(version, opened - begin, loaded - opened, time.monotonic() - loaded, gap)

    async def _open(self, members: list[Any]) -> str:
        """Make these engines the members of the group; returns as :meth:`LearnerRanks.open_transfer` does."""
        if not members or members == self._members:
            return ""
        self._members = []
        problem = await self._learner.open_transfer(members, self._engine_world_size)
        self._members = [] if problem else members
        return problem

    def _end_engines(self, cause: str) -> None:
        self._members = []
        self._pool.end_all("send_weights", cause)

    async def _load_replacement(self, version: int, worker: str, handle: Any) -> None:
        """Bring one engine that serves nothing yet to the learner's weights, and verify that it has them."""
        # It may have loaded before, and then answers from the cache of its first prompts.
        await reply(handle.pause.remote(), worker, "pause", self._timeout_s)
        # Both calls are sent before anything else can be, so both are of the same weights.
        sending = asyncio.ensure_future(self._learner.send_weights_to(handle, self._engine_world_size))
        scoring = asyncio.ensure_future(_learner_logprobs(self._learner, self._canary))
        try:
            if problem := await sending:
                raise WorkerDied(worker, "send_weights", problem)
            await reply(handle.set_version.remote(version), worker, "set_version", self._timeout_s)
            await reply(handle.resume.remote(), worker, "resume", self._timeout_s)
            if self._canary is not None:
                found = await reply(handle.score.remote(self._canary.token_ids), worker, "score", self._timeout_s)
                self._canary.check(worker, version, await scoring, found)
        finally:
            sending.cancel()
            scoring.cancel()


async def _learn_rounding(
    pool: RolloutPool, canary: Canary | None, version: int, expected: Awaitable[list[float]]
) -> None:
    """Before anything is sent to engines that have loaded the learner's own starting weights, compare the two."""
    if canary is not None and canary.needs_scale and version == 0:
        answers = await pool.every("score", canary.token_ids)
        canary.learn(await expected, answers.values())


async def _learner_logprobs(learner: LearnerRanks, canary: Canary | None) -> list[float]:
    return await learner.logprobs(canary.token_ids) if canary is not None else []


async def _canary_gap_max(
    pool: RolloutPool, canary: Canary | None, version: int, expected: Sequence[float]
) -> float | None:
    """Ask every engine for the canary; the largest gap, or WeightMismatchError."""
    if canary is None:
        return None
    answers = await pool.every("score", canary.token_ids)
    gap = max((canary.check(worker, version, expected, found) for worker, found in answers.items()), default=None)
    canary.learn(expected, answers.values())  # of a run that goes on, whose engines had other weights before
    return gap
