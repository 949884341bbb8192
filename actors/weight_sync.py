"""New weights from the learner to all running engines, one interface, two routes.

``ObjectStoreRoute`` works everywhere: rank 0 puts the weights into Ray's object store once, each rollout worker maps
them and hands them to its engine through shared memory. ``NcclRoute`` keeps the tensors on GPUs: the learner's rank 0
broadcasts to all engines with vLLM's own NCCL weight transfer. In both, the version counts only once every engine has
acknowledged that it applied the weights.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Protocol

from actors.rollout_pool import RolloutPool


class LearnerSide(Protocol):
    """What a route needs of the learner."""

    async def export_weights(self) -> Any:
        """A reference to ``{name: numpy array}`` in the object store."""
        ...

    async def open_transfer(self, engines: list[Any], engine_world_size: int) -> None:
        """Rank 0 opens vLLM's NCCL group with all engines."""
        ...

    async def send_weights(self) -> None:
        """All ranks gather, rank 0 broadcasts to the engines."""
        ...


@dataclass(frozen=True, slots=True)
class SyncReport:
    """One finished synchronisation.

    Attributes:
        version: weight version that every engine acknowledged.
        export_s: seconds until the weights had left the learner.
        load_s: seconds until the last engine had applied them.
    """

    version: int
    export_s: float
    load_s: float


class WeightSync(Protocol):
    """Publishes the learner's current weights."""

    async def publish(self, version: int) -> SyncReport:
        """Return once every engine serves weight version ``version``."""
        ...


class ObjectStoreRoute:
    """Weights through Ray's object store and shared memory."""

    def __init__(self, learner: LearnerSide, pool: RolloutPool) -> None:
        self._learner = learner
        self._pool = pool

    async def publish(self, version: int) -> SyncReport:
        """See :meth:`WeightSync.publish`."""
        begin = time.monotonic()
        weights = await self._learner.export_weights()
        exported = time.monotonic()
        _require_acknowledged(version, await self._pool.every("load_weights", weights, version))
        return SyncReport(version, exported - begin, time.monotonic() - exported)


class NcclRoute:
    """Weights from GPU to GPUs by vLLM's NCCL weight transfer.

    Args:
        engine_world_size: GPUs of one engine (its tensor-parallel size).
    """

    def __init__(self, learner: LearnerSide, pool: RolloutPool, engine_world_size: int) -> None:
        self._learner = learner
        self._pool = pool
        self._engine_world_size = engine_world_size
        self._is_open = False

    async def publish(self, version: int) -> SyncReport:
        """See :meth:`WeightSync.publish`."""
        begin = time.monotonic()
        if not self._is_open:
            await self._learner.open_transfer(self._pool.workers, self._engine_world_size)
            self._is_open = True
        await self._pool.every("pause")
        opened = time.monotonic()
        try:
            await self._learner.send_weights()
            _require_acknowledged(version, await self._pool.every("set_version", version))
        finally:
            await asyncio.shield(self._pool.every("resume"))
        return SyncReport(version, opened - begin, time.monotonic() - opened)


def _require_acknowledged(version: int, answers: list[Any]) -> None:
    wrong = [answer for answer in answers if answer != version]
    if wrong:
        raise RuntimeError(f"rollout workers acknowledged weight versions {answers}, expected {version} from each")
