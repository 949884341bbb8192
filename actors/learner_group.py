"""All learner ranks as one, as the controller and the weight routes see them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actors.group_buffer import Group
from actors.worker_group import WorkerGroup
from learner.manifest import prune
from learner.metrics import to_floats


class LearnerGroup:
    """Trains, exports weights and saves with all ranks at once.

    Args:
        workers: actor handles of :class:`actors.learner_worker.LearnerWorker`, in rank order, set up.
        checkpoints: folder of the run's checkpoints.
        keep_checkpoints: newest ones that stay.
        critic_warmup_steps: first steps that leave the policy as it is.
        timeout_s: longest time one call may take.
    """

    def __init__(
        self,
        workers: Sequence[Any],
        checkpoints: Path,
        keep_checkpoints: int,
        critic_warmup_steps: int,
        timeout_s: float,
    ) -> None:
        self._ranks = WorkerGroup(workers, "learner")
        self._checkpoints = checkpoints
        self._keep = keep_checkpoints
        self._critic_warmup_steps = critic_warmup_steps
        self._timeout_s = timeout_s

    async def update(self, groups: Sequence[Group], step: int) -> dict[str, float]:
        """Train on the groups; returns merged metrics and the seconds of each phase."""
        members = [(group.group_id, sample) for group in groups for sample in group.samples]
        rewards = [sample.reward.observed for _, sample in members]
        group_ids = [group_id for group_id, _ in members]
        results = await self._ranks.call(
            "train",
            step,
            step < self._critic_warmup_steps,
            rewards,
            group_ids,
            *(sample.trajectory for _, sample in members),
            timeout_s=self._timeout_s,
        )
        timings = {f"time/learner_{phase}_s": seconds for phase, seconds in results[0].timings.items()}
        return to_floats(results[0].metrics) | timings

    async def export_weights(self) -> Any:
        """A reference to rank 0's ``{name: array}`` in the object store."""
        references = self._ranks.start("export_weights")
        if len(references) > 1:  # under ZeRO-3 all ranks take part; their failures must be seen
            await self._ranks.gather(references, "export_weights", timeout_s=self._timeout_s)
        return references[0]

    async def save(self, step: int, controller_state: dict[str, Any]) -> str:
        """Write ``checkpoints/step-N`` and delete the oldest beyond those kept; returns the path."""
        path = self._checkpoints / f"step-{step}"
        await self._ranks.call("save", str(path), controller_state, timeout_s=self._timeout_s)
        await asyncio.to_thread(prune, self._checkpoints, self._keep)
        return str(path)

    async def open_transfer(self, engines: list[Any], engine_world_size: int) -> None:
        """Rank 0 opens vLLM's NCCL group with all engines."""
        rank_0 = WorkerGroup(self._ranks.actors[:1], "learner")
        ((address, _),) = await rank_0.call("address", timeout_s=self._timeout_s)
        await self._ranks.call("open_transfer", engines, engine_world_size, address, timeout_s=self._timeout_s)

    async def send_weights(self) -> None:
        """All ranks gather, rank 0 broadcasts to the engines."""
        await self._ranks.call("send_weights", timeout_s=self._timeout_s)
