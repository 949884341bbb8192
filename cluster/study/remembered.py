"""Greedy answers of starting weights, which every cell of a study asks for once more."""

from __future__ import annotations

from typing import Any

from actors.workers.rollout_worker import RolloutWorker
from rollout.sampling.engine import LoadOutcome
from rollout.sampling.weight_check import TensorFact, digest
from rollout.tasks.environments import environment_maker
from rollout.trajectory import SampleRequest, Trajectory

Answers = dict[tuple[str, str, tuple[int, ...]], Trajectory]
"""By digest of the weights, name of the prompt, and its tokens."""


class RememberingWorker(RolloutWorker):
    """A rollout worker that answers a prompt greedily only once with the same starting weights.

    Such an answer is a function of the weights, which have a checksum, and the prompt; it is scored anew by every cell.
    Nothing is remembered of later weights, which no other cell has, nor of tasks with environments, whose random
    numbers are the run's.

    Args:
        answers: what is remembered, for all workers with the same rollout options.
        options: those of :class:`RolloutWorker`.
    """

    def __init__(self, answers: Answers, **options: Any) -> None:
        super().__init__(**options)
        self._answers = answers
        self._has_environment = options["task"] is not None and environment_maker(options["task"]) is not None
        self._weights: str | None = None

    async def load_weights(self, weights: dict[str, Any], facts: dict[str, TensorFact], version: int) -> LoadOutcome:
        """See :meth:`RolloutWorker.load_weights`."""
        is_known = all(fact.checksum is not None for fact in facts.values())
        self._weights = digest(facts) if version == 0 and is_known and not self._has_environment else None
        return await super().load_weights(weights, facts, version)

    async def respond_greedily(self, request: SampleRequest) -> Trajectory:
        """See :meth:`RolloutWorker.respond_greedily`."""
        if self._weights is None:
            return await super().respond_greedily(request)
        key = self._weights, request.prompt.prompt_id, request.prompt.token_ids
        if key not in self._answers:
            self._answers[key] = await super().respond_greedily(request)
        return self._answers[key]
