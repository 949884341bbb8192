"""The producing half of the loop: prompts become scored trajectories, as fast as the bound on staleness allows."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol

from actors.activity import ActivityClock
from actors.group_buffer import Group, GroupBuffer, Sample
from actors.journal import Journal
from actors.reward_pool import RewardPool
from actors.rollout_pool import RolloutPool
from rollout.trajectory import Prompt, RewardOutcome, RewardRecord, SampleRequest

MAX_TOLD_ERRORS = 3
"""Failed scores told one by one between two steps; all are counted."""


class PromptSource(Protocol):
    """An endless, deterministic sequence of training prompts."""

    def at(self, index: int) -> tuple[int, Prompt]:
        """Epoch and prompt at a position of the sequence."""
        ...


class TooManyRewardErrors(Exception):
    """The reward function failed on more than the configured share of a step's trajectories."""


class Generation:
    """Runs beside training: admits groups, samples and scores their trajectories, settles them in the buffer.

    Each trajectory makes its own way from request to score, so none waits for another. A failure of any part ends
    the run through :meth:`GroupBuffer.fail`.

    Args:
        source: training prompts.
        samples_per_prompt: trajectories of one group.
        max_reward_errors: failed scores between two steps above which the run is stopped.
        buffer, pool, rewards, clock: the parts it connects.
        journal: where failed scores are told.
        state: what :meth:`state` returned in the run to go on from, or None.
    """

    def __init__(
        self,
        source: PromptSource,
        samples_per_prompt: int,
        max_reward_errors: float,
        buffer: GroupBuffer,
        pool: RolloutPool,
        rewards: RewardPool,
        clock: ActivityClock,
        journal: Journal,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self._source = source
        self._samples_per_prompt = samples_per_prompt
        self._max_errors = max_reward_errors
        self._buffer, self._pool, self._rewards, self._clock = buffer, pool, rewards, clock
        self._journal = journal
        self._next_index = int(state["next_index"]) if state else 0
        self._unfinished: set[int] = set(state["unfinished"]) if state else set()
        self._again = deque(sorted(self._unfinished))
        self._errors: list[RewardRecord] = []
        self._num_dropped_groups = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.num_scored = 0

    def state(self) -> dict[str, Any]:
        """Position in the sequence of prompts, for a checkpoint; groups not trained on are generated again."""
        return {"next_index": self._next_index, "unfinished": sorted(self._unfinished)}

    def start(self) -> None:
        """Begin to generate."""
        self._spawn(self._admit_groups())

    async def stop(self) -> None:
        """Cancel what is on its way and wait until it is gone."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def mark_trained(self, groups: list[Group]) -> None:
        """These groups need not be generated again."""
        self._unfinished -= {group.index for group in groups}

    def take_counts(self) -> dict[str, float]:
        """Failures since the last call, by kind; starts the count of scored trajectories anew."""
        counts = {
            "reward/num_errors": float(len(self._errors)),
            "rollout/num_dropped_groups": float(self._num_dropped_groups),
        }
        self.num_scored, self._num_dropped_groups, self._errors = 0, 0, []
        return counts

    async def _admit_groups(self) -> None:
        while await self._buffer.wait_until_wanted():
            index = self._take_index()
            epoch, prompt = self._source.at(index)
            name = f"{prompt.prompt_id}@{epoch}"
            group = await self._buffer.admit(index, name, prompt, self._samples_per_prompt)
            if group is None:
                return
            self._spawn(self._fill(group, epoch))

    def _take_index(self) -> int:
        if self._again:
            return self._again.popleft()
        index = self._next_index
        self._next_index += 1
        self._unfinished.add(index)
        return index

    async def _fill(self, group: Group, epoch: int) -> None:
        first = epoch * group.num_samples
        requests = [SampleRequest(group.prompt, first + i) for i in range(group.num_samples)]
        await asyncio.gather(*(self._sample(group, request) for request in requests))
        if not group.samples:
            self._unfinished.discard(group.index)
            self._num_dropped_groups += 1
        await self._buffer.settle(group)

    async def _sample(self, group: Group, request: SampleRequest) -> None:
        """One trajectory from request to score."""
        with self._clock.during("generate"):
            summary, trajectory = await self._pool.sample(request)
        record = await self._rewards.score(request.prompt, trajectory)
        self.num_scored += 1
        if record.outcome is RewardOutcome.ERROR:
            self._count_error(record)
        if record.observed is None:
            group.dropped.append(record)
        else:
            group.samples.append(Sample(summary, record, trajectory))

    def _count_error(self, record: RewardRecord) -> None:
        self._errors.append(record)
        if len(self._errors) <= MAX_TOLD_ERRORS:
            text = f"reward failed on prompt {record.prompt_id}, sample {record.sample_index}: {record.error}"
            self._journal.add("event", self._buffer.version, text)
        if len(self._errors) > self._max_errors:
            raise TooManyRewardErrors(
                f"the reward failed on {len(self._errors)} trajectories within one step; reward.max_error_frac allows "
                f"{self._max_errors:g}. The last failure, on prompt {record.prompt_id}: {record.error}"
            )

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside the loop; its failure ends the run."""

        async def guarded() -> None:
            try:
                await coroutine
            except Exception as error:  # whatever it is, take() raises it where the run can end in order
                await self._buffer.fail(error)

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
