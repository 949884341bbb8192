"""The producing half of the loop: prompts become scored trajectories, as fast as the bound on staleness allows."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from actors.faults import DataLost, Quarantined, TooManyRewardErrors
from actors.groups import Dropped, Group, Sample
from actors.ledger.samples import SampleScore
from actors.ledger.writer import LedgerWriter
from actors.loop.activity import ActivityClock
from actors.loop.config import PartialGroups
from actors.loop.group_buffer import GroupBuffer
from actors.loop.pseudo_labels import PseudoLabels
from actors.loop.records import Records
from actors.loop.sampling_budget import NOT_ALLOTTED, SamplingBudget
from actors.pools.reward_pool import RewardPool
from actors.pools.rollout_pool import RolloutPool
from rollout.data.prompt_source import PromptSource
from rollout.scoring.recheck import is_rechecked
from rollout.scoring.record import RewardOutcome, RewardRecord
from rollout.trajectory import SampleRequest, TrajectorySummary

MAX_TOLD_ERRORS = 3
"""Failed scores told one by one between two steps; all are counted."""
MAX_REPLACEMENTS = 3
"""With ``partial_groups: refill``, samples asked for in a row in the place of one without a score: enough for failures
at random, and an end for a prompt whose responses all fail."""
PARTIAL = "another sample of its prompt has no score (training.partial_groups: drop)"


@dataclass(frozen=True, slots=True)
class FailureLimits:
    """How many scores may fail (``errors``) or be refused (``abstentions``) of the trajectories of one step.

    With staleness more than ``per_step`` trajectories may be scored between two steps; of these as large a share may.
    """

    errors: float
    abstentions: float
    per_step: int


class Generation:
    """Runs beside training: admits groups, samples and scores their trajectories, settles them in the buffer.

    Each trajectory makes its own way from request to score, so none waits for another. Every change of its state is
    written to the ledger, which also says where to go on from. A failure of any part ends the run through
    :meth:`GroupBuffer.fail`.

    Args:
        source: training prompts.
        samples_per_prompt: trajectories of one group.
        limits: failures of the reward above which the run is stopped.
        buffer, pool, rewards, clock: the parts it connects.
        records: of these the ledger, which has every change, and those who are told of failed and of finished scores.
        labels: scores a group by its samples' votes; None where the reward scores each sample.
        run_seed, gold_share: of which trajectories the ledger keeps a true score, see ``reward.gold_share``.
        partial_groups: what becomes of a group of which some samples have no score.
        budget: allots samples to prompts; None where all have the same number.
    """

    def __init__(
        self,
        *,
        source: PromptSource,
        samples_per_prompt: int,
        limits: FailureLimits,
        buffer: GroupBuffer,
        pool: RolloutPool,
        rewards: RewardPool,
        clock: ActivityClock,
        records: Records,
        run_seed: int,
        gold_share: float,
        labels: PseudoLabels | None = None,
        partial_groups: PartialGroups = "train",
        budget: SamplingBudget | None = None,
    ) -> None:
        self._source = source
        self._samples_per_prompt = samples_per_prompt
        self._limits = limits
        self._buffer, self._pool, self._rewards, self._clock = buffer, pool, rewards, clock
        self._ledger, self._tell, self._status = records.ledger, records.tell, records.status
        self._writer = LedgerWriter(records.ledger, records.disk)
        self._labels, self._partial_groups, self._budget = labels, partial_groups, budget
        self._run_seed, self._gold_share = run_seed, gold_share
        position = self._ledger.position()
        self._next_index = position.next_index
        self._again = deque(position.unfinished)
        self._errors: list[RewardRecord] = []
        self._abstentions: list[RewardRecord] = []
        self._num_dropped_groups = self._num_environment_failures = self._num_replacements = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.num_scored = 0

    def start(self) -> None:
        """Begin to generate."""
        self._spawn(self._admit_groups())

    async def stop(self) -> None:
        """Cancel what is on its way and wait until it is gone."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def give_up(self, groups: Sequence[Group], reason: str) -> None:
        """These groups are not trained on; others may be generated in their places."""
        for group in groups:
            for sample in group.samples:
                await self._drop(group, sample.summary.trajectory_id, reason)
        await self._buffer.give_back(len(groups))

    def take_counts(self) -> dict[str, float]:
        """Failures since the last call, by kind; starts the count of scored trajectories anew."""
        counts = {
            "rollout/num_dropped_groups": float(self._num_dropped_groups),
            "rollout/num_replacements": float(self._num_replacements),
            "rollout/environment_failures": float(self._num_environment_failures),
            **self._rewards.take_metrics(),
        }
        counts |= self._labels.take_metrics() if self._labels is not None else {}
        self.num_scored = self._num_dropped_groups = self._num_environment_failures = self._num_replacements = 0
        self._errors, self._abstentions = [], []
        return counts

    async def _admit_groups(self) -> None:
        while await self._buffer.wait_until_wanted():
            index = self._take_index()
            epoch, prompt = self._source.at(index)
            first, number = epoch * self._samples_per_prompt, self._samples_per_prompt
            group = await self._buffer.admit(index, f"{prompt.prompt_id}@{epoch}", prompt, number)
            if group is None:
                return
            if self._budget is not None:
                self._budget.begin(group)
            admit = partial(self._ledger.admit, index, prompt.prompt_id, epoch, first, number)
            self._spawn(self._begin(group, first, admit))

    def _take_index(self) -> int:
        if self._again:
            return self._again.popleft()
        index = self._next_index
        self._next_index += 1
        return index

    async def _begin(self, group: Group, first: int, admit: Callable[[], None]) -> None:
        """Beside the admission of further groups, so that the ledger takes all that are admitted at once together."""
        await self._writer.write(admit)
        await self._fill(group, first)

    async def _fill(self, group: Group, first: int) -> None:
        requests = [SampleRequest(group.prompt, first + i) for i in range(group.num_samples)]
        if self._budget is not None:
            await self._fill_within(self._budget, group, requests)
        else:
            await asyncio.gather(*(self._sample(group, request) for request in requests))
        group.samples.sort(key=lambda sample: sample.reward.sample_index)  # whichever came first
        if self._partial_groups == "drop" and len(group.samples) < group.num_samples:
            await self._drop_samples(group, PARTIAL)
        if self._labels is not None and group.samples:
            await self._vote(self._labels, group, first // self._samples_per_prompt)
        if not group.samples:
            self._num_dropped_groups += 1
        await self._buffer.settle(group)

    async def _fill_within(self, budget: SamplingBudget, group: Group, requests: Sequence[SampleRequest]) -> None:
        """The pilots, then as many others as the budget allots; the rest is never asked for, which the ledger notes."""
        await asyncio.gather(*(self._sample(group, request) for request in requests[: budget.pilot]))
        number = await budget.further(group)
        group.num_samples = budget.pilot + number
        for request in requests[group.num_samples :]:
            step = self._buffer.version + 1
            await self._writer.write(partial(self._ledger.drop, request.trajectory_id, NOT_ALLOTTED, step, ""))
        await asyncio.gather(*(self._sample(group, r) for r in requests[budget.pilot : group.num_samples]))
        budget.weigh(group, requests[0].sample_index, number)

    async def _vote(self, labels: PseudoLabels, group: Group, epoch: int) -> None:
        """Score the samples by their votes; without a label they are dropped."""
        if reason := labels.score(group, epoch):
            await self._drop_samples(group, reason)

    async def _drop_samples(self, group: Group, reason: str) -> None:
        for sample in group.samples:
            await self._drop(group, sample.summary.trajectory_id, reason)
        group.samples.clear()

    async def _sample(self, group: Group, request: SampleRequest) -> None:
        """One trajectory from request to score, or with ``refill`` another one in its place."""
        num_left = MAX_REPLACEMENTS if self._partial_groups == "refill" else 0
        try:
            while reason := await self._try_sample(group, request):
                replacement = request.replacement() if num_left else None
                await self._drop(group, request.trajectory_id, reason, replacement)
                if replacement is None:
                    return
                request, num_left = replacement, num_left - 1
                self._num_replacements += 1
        except Quarantined as quarantined:  # no other sample of its prompt will be made
            await self._drop(group, request.trajectory_id, str(quarantined))

    async def _try_sample(self, group: Group, request: SampleRequest) -> str:
        """Add the trajectory to its group, or return why it cannot be trained on."""
        summary, trajectory, record = await self._sample_and_score(request)
        self.num_scored += 1
        self._status.progress()
        if record.outcome in (RewardOutcome.ERROR, RewardOutcome.ABSTAINED):
            self._count_failure(record, "environment" if summary.failure else "reward")
        if summary.failure:
            self._num_environment_failures += 1
            return "the environment failed"
        if record.observed is None and record.outcome is not RewardOutcome.PENDING:
            kind = f" ({record.error_kind.value})" if record.error_kind is not None else ""
            return f"no score: {record.outcome.value}{kind}"
        num_tokens, score = summary.num_response_tokens, self._score_of(record)
        await self._writer.write(partial(self._ledger.ready, request.trajectory_id, num_tokens, score))
        group.samples.append(Sample(summary, record, trajectory))
        return ""

    def _score_of(self, record: RewardRecord) -> SampleScore:
        """What the ledger keeps: no stand-in for a score, and a true one only where it may be looked at."""
        gold = record.gold_label
        if gold is None and is_rechecked(self._run_seed, record.prompt_id, record.sample_index, self._gold_share):
            gold = record.clean
        observed = record.observed if record.outcome is RewardOutcome.SCORED else None
        return SampleScore(observed=observed, answer_key=record.answer_key, gold=gold)

    async def _sample_and_score(self, request: SampleRequest) -> tuple[TrajectorySummary, Any, RewardRecord]:
        """Sample again when the node that held the trajectory is lost before it was scored."""
        while True:
            with self._clock.during("generate"):
                summary, trajectory = await self._pool.sample(request)
            if summary.failure:
                return summary, trajectory, RewardRecord.unscored(request, summary.failure)
            try:
                return summary, trajectory, await self._rewards.score(request.prompt, trajectory)
            except DataLost as error:
                cause = type(error.__cause__ or error).__name__
                await self._writer.write(partial(self._ledger.reissue, request.trajectory_id, cause))

    async def _drop(
        self, group: Group, trajectory_id: str, reason: str, replacement: SampleRequest | None = None
    ) -> None:
        successor = replacement.trajectory_id if replacement is not None else ""
        await self._writer.write(partial(self._ledger.drop, trajectory_id, reason, self._buffer.version + 1, successor))
        group.dropped.append(Dropped(trajectory_id, reason))

    def _count_failure(self, record: RewardRecord, what: str) -> None:
        """Tell the first failures of a step, and stop the run when there are too many.

        Args:
            what: failed, the reward or the environment.
        """
        failed = record.outcome is RewardOutcome.ERROR
        failures = self._errors if failed else self._abstentions
        verb, option = ("failed", "max_error_frac") if failed else ("abstained", "max_abstain_frac")
        allowed = self._limits.errors if failed else self._limits.abstentions
        allowed *= max(1.0, self.num_scored / self._limits.per_step)
        failures.append(record)
        if failed and len(failures) <= MAX_TOLD_ERRORS:
            text = f"{what} failed on prompt {record.prompt_id}, sample {record.sample_index}: {record.error}"
            self._tell(what, self._buffer.version, text, "warning")
        if len(failures) > allowed:
            raise TooManyRewardErrors(
                f"the {what} {verb} on {len(failures)} trajectories within one step; reward.{option} allows "
                f"{allowed:g}. The last one, on prompt {record.prompt_id}: {record.error}"
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
