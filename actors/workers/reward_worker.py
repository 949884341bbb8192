"""One reward worker: the reward service, whose calls travel in batches."""

from __future__ import annotations

from actors.calls.batched_actor import BatchedActor
from rollout.scoring.service import RewardService


class RewardWorker(BatchedActor, RewardService):
    """A :class:`rollout.scoring.service.RewardService` as an asyncio actor."""
