"""All reward service actors as one."""

from __future__ import annotations

from typing import Any

from rollout.trajectory import Prompt, RewardRecord


class RewardPool:
    """The reward service's actors; each trajectory goes to the next one.

    Args:
        workers: handles of :class:`actors.reward_service.RewardService` actors.
    """

    def __init__(self, workers: list[Any]) -> None:
        self._workers = workers
        self._next = 0

    def _pick(self) -> Any:
        self._next = (self._next + 1) % len(self._workers)
        return self._workers[self._next]

    async def score(self, prompt: Prompt, trajectory: Any) -> RewardRecord:
        """Observed and clean score; ``trajectory`` may be a reference."""
        return await self._pick().score.remote(prompt, trajectory)

    async def clean_score(self, prompt: Prompt, trajectory: Any) -> RewardRecord:
        """Clean score only."""
        return await self._pick().clean_score.remote(prompt, trajectory)
