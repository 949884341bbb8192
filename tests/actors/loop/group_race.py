"""Runs of a group buffer whose groups finish in random order, followed by plain bookkeeping of their own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations

from actors.groups import Group, Sample
from actors.loop.group_buffer import GroupBuffer
from rollout.scoring.record import RewardOutcome, RewardRecord
from rollout.trajectory import FinishReason, Prompt, TrajectorySummary


def prompt(index: int) -> Prompt:
    return Prompt(prompt_id=f"p{index}", messages=(), token_ids=(1, 2), reference=None, task="t")


def sample(version: int = 0, delay: int = 0, newest_version: int | None = None) -> Sample:
    """A sample whose oldest token is of ``version``; its score is ``delay`` updates late."""
    newest = version if newest_version is None else newest_version
    summary = TrajectorySummary(
        trajectory_id="p#0",
        num_prompt_tokens=2,
        num_response_tokens=3,
        finish_reason=FinishReason.STOP,
        policy_version_min=version,
        policy_version_max=newest,
    )
    record = RewardRecord(
        prompt_id="p", sample_index=0, observed=1.0, clean=1.0, outcome=RewardOutcome.SCORED, delay_updates=delay
    )
    return Sample(summary, record, None)


async def is_blocked(awaitable: asyncio.Future[object] | asyncio.Task[object]) -> bool:
    """Whether it is not done although everything else has had its turn."""
    for _ in range(5):
        await asyncio.sleep(0)
    return not awaitable.done()


@dataclass(frozen=True)
class Plan:
    """What a race is like; probabilities and bounds of what happens to its groups."""

    per_step: int
    max_staleness: int
    num_steps: int
    seed: int
    drop: float = 0.0
    max_delay: int = 0
    refuse: float = 0.0
    """Probability that a batch is not trained on, so that its groups give their places back."""
    slow: float = 0.0
    """Share of groups that finish only when nothing else can happen, which strains the bound most."""


@dataclass
class Race:
    """Admits, finishes, drops and takes at random, and checks every step against exhaustive search if asked."""

    plan: Plan
    check_against_search: bool = False
    trained: list[list[Group]] = field(default_factory=list)
    trained_indices: list[int] = field(default_factory=list)
    dropped_indices: list[int] = field(default_factory=list)
    num_admitted: int = 0
    num_forced_waits: int = 0
    """Moments at which enough groups were settled and the batch had to wait."""
    num_overtaken: int = 0
    """Groups that were left for a later batch while a younger one was taken."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.plan.seed)
        self.buffer = GroupBuffer(self.plan.per_step, self.plan.max_staleness, self.plan.num_steps)
        self.version = 0
        self.open: list[Group] = []
        self.slow_indices: set[int] = set()
        self.settled: dict[int, Group] = {}

    @property
    def fast(self) -> list[Group]:
        """Open groups that do not wait for others to finish first."""
        return [group for group in self.open if group.index not in self.slow_indices]

    @property
    def num_admissible(self) -> int:
        """Groups that the bound on the pace leaves room for."""
        ahead = min(self.version + self.plan.max_staleness + 1, self.plan.num_steps)
        return ahead * self.plan.per_step - self.num_admitted + len(self.dropped_indices)

    async def run(self) -> None:
        """Until the last batch is trained on; fails if nothing can happen before."""
        batch: asyncio.Task[list[Group]] | None = None
        training = False
        while self.version < self.plan.num_steps:
            if batch is None and not training:
                batch = asyncio.create_task(self.buffer.take(3600.0))
            if batch is not None:
                blocked = await is_blocked(batch)
                if self.check_against_search:
                    assert blocked is not self.may_form(), self.situation()
                self.num_forced_waits += blocked and len(self.settled) >= self.plan.per_step
                if not blocked:
                    training = await self.train(batch.result())
                    batch = None
            events = ["admit"] * (self.num_admissible > 0) + ["settle"] * 2 * bool(self.fast) + ["advance"] * training
            events = events or ["settle"] * bool(self.open)
            assert events or batch is None, f"deadlock: {self.situation()}"
            match self.rng.choice(events) if events else "":
                case "admit":
                    await self.admit()
                case "settle":
                    await self.settle(self.rng.choice(self.fast or self.open))
                case "advance":
                    training = False
                    self.version += 1
                    await self.buffer.advance(self.version)
        assert (self.open, self.settled) == ([], {})
        assert self.num_admissible == 0

    async def admit(self) -> None:
        index = self.num_admitted
        group = await asyncio.wait_for(self.buffer.admit(index, f"g{index}", prompt(index), 2), 10.0)
        assert group is not None and group.admitted_version == self.version
        self.num_admitted += 1
        self.open.append(group)
        if self.rng.random() < self.plan.slow:
            self.slow_indices.add(index)
        if not self.num_admissible:
            more = asyncio.create_task(self.buffer.wait_until_wanted())
            assert await is_blocked(more), "the pace is exceeded"
            more.cancel()

    async def settle(self, group: Group) -> None:
        self.open.remove(group)
        if self.rng.random() < self.plan.drop:
            self.dropped_indices.append(group.index)
        else:
            for _ in range(2):
                oldest = self.rng.choice(
                    (group.admitted_version, self.rng.randint(group.admitted_version, self.version))
                )
                newest = self.rng.randint(oldest, self.version)
                group.samples.append(sample(oldest, self.rng.randint(0, self.plan.max_delay), newest))
            self.settled[group.index] = group
        await self.buffer.settle(group)

    async def train(self, batch: list[Group]) -> bool:
        """Look at a batch that was formed; false if it is refused."""
        indices = [group.index for group in batch]
        assert len(indices) == self.plan.per_step
        assert indices == sorted(indices), "in the order of prompts"
        if self.check_against_search:
            assert self.late(batch) == self.fewest_late(list(self.settled.values())), self.situation()
            assert fits(self.left_after(batch), self.version + 1, self.plan.per_step), self.situation()
        for group in batch:
            assert self.settled.pop(group.index) is group
        if self.rng.random() < self.plan.refuse:
            self.dropped_indices += indices
            await self.buffer.give_back(len(batch))
            return False
        for group in batch:
            for one in group.samples:
                assert self.version - one.summary.policy_version_min <= self.plan.max_staleness, self.situation()
        self.num_overtaken += sum(index < max(indices) for index in self.settled)
        self.trained.append(batch)
        self.trained_indices += indices
        return True

    # --- exhaustive search, for small races ---------------------------------------------------------------------

    def deadline(self, group: Group) -> int:
        """Last version at which a group may be trained on, also by the length of the run."""
        versions = [one.summary.policy_version_min for one in group.samples] or [group.admitted_version]
        return min(min(versions) + self.plan.max_staleness, self.plan.num_steps - 1)

    def late(self, groups: Sequence[Group]) -> int:
        """How many have a score that training should not see yet."""
        arrivals = [max(s.summary.policy_version_max + s.reward.delay_updates for s in g.samples) for g in groups]
        return sum(arrival > self.version for arrival in arrivals)

    def left_after(self, batch: Sequence[Group]) -> list[int]:
        """Deadlines of all admitted groups that are not in the batch."""
        taken = {group.index for group in batch}
        everyone = [*self.open, *self.settled.values()]
        return sorted(self.deadline(group) for group in everyone if group.index not in taken)

    def fewest_late(self, groups: Sequence[Group], to_come: int = 0) -> int | None:
        """Least number of late groups over all batches of ``groups`` after which the rest still fits; None if none.

        Args:
            to_come: groups that may still be admitted and are taken for finished.
        """
        young = [Group(-1 - i, "", prompt(0), 1, self.version, [sample(self.version)]) for i in range(to_come)]
        known = {group.index for group in groups}
        others = [self.deadline(g) for g in [*self.open, *self.settled.values()] if g.index not in known]
        found = []
        for batch in combinations([*groups, *young], self.plan.per_step):
            taken = {group.index for group in batch}
            left = [self.deadline(group) for group in [*groups, *young] if group.index not in taken]
            if fits(sorted(others + left), self.version + 1, self.plan.per_step):
                found.append(self.late(batch))
        return min(found, default=None)

    def may_form(self) -> bool:
        """Whether a batch exists that needs no more late groups than if everyone else were finished and on time."""
        now = self.fewest_late(list(self.settled.values()))
        if now is None:
            return False
        finished = [
            Group(g.index, g.group_id, g.prompt, 1, g.admitted_version, [sample(g.admitted_version)]) for g in self.open
        ]
        return now == self.fewest_late([*self.settled.values(), *finished], self.num_admissible)

    def situation(self) -> str:
        """For messages."""
        settled = [(g.index, self.deadline(g), self.late([g])) for g in self.settled.values()]
        waiting = [(g.index, self.deadline(g)) for g in self.open]
        return f"{self.plan} at version {self.version}: settled (index, deadline, late) {settled}, open {waiting}"


def fits(deadlines: Sequence[int], first: int, per_step: int) -> bool:
    """Whether all groups can be put into batches ``first``, ``first + 1``, ... by their deadlines; tries every way."""
    return _fits(tuple(deadlines), first, per_step)


@lru_cache(maxsize=100_000)
def _fits(deadlines: tuple[int, ...], version: int, per_step: int) -> bool:
    if not deadlines:
        return True
    if min(deadlines) < version:
        return False
    chosen = {
        batch for n in range(min(per_step, len(deadlines)) + 1) for batch in combinations(range(len(deadlines)), n)
    }
    rests = {tuple(due for i, due in enumerate(deadlines) if i not in batch) for batch in chosen}
    return any(_fits(rest, version + 1, per_step) for rest in rests)
