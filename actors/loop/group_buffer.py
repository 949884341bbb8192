"""Which groups may be generated, and which are trained on next: the bound on staleness lives here.

A *group* is one prompt with its samples. Groups are admitted (generation may begin), settled (every sample is scored
or dropped) and taken (they form a training batch). No trajectory is trained on more than ``max_staleness`` updates
after the weights that sampled it, and no finished work is ever thrown away for it. So slow (long) responses are waited
for rather than dropped, and the data are not biased towards short ones.

With v the weight version, P groups in a batch and S the bound, a group's *deadline* is the last version that may train
on it: S plus the version of its oldest token, and while it is open (more may be sampled) S plus the version it was
admitted at. One invariant holds whenever a batch is about to be formed at version v:

    for each version d >= v, the groups due by d are at most (d - v + 1) P: they fit into the batches left until d.

* *Pacing* keeps it when groups are admitted: at version v at most (v + S + 1) P groups have been, those that were
  dropped whole not counted. v P of them were taken, so at most (S + 1) P are left; new ones are due at v + S, and no
  deadline is later. A group that is dropped only lowers the counts, and its replacement is due at v + S again.
* Pacing alone does not keep it when a batch is *formed*: what overtakes uses up a place that older groups need later.
  So a batch is formed only if the invariant holds at v + 1 without it. It can hold as many groups due by d as there
  are settled ones, up to P; with the invariant at v this comes down to: the open groups due by d are at most (d - v) P,
  for each d. Within that anything may overtake.
* Nothing waits for ever: when no group is open the condition is empty, and pacing has admitted at least (v + 1) P, so
  that P are left. The P with the earliest deadlines are always a batch that keeps the invariant.

At bound 0 all groups of a batch are due at once, which is the synchronous loop. In the last S steps fewer than
(v + S + 1) P groups are admitted, num_steps P in all, so the last batch is whole and leaves nothing behind.

A score may arrive late on purpose (the noise model ``delay``). Its group is left for a later batch as long as groups
that are not late can take its place, those that are still open included; a batch takes late ones early only if the
invariant or its size cannot be had without them.

The groups of a batch, once chosen, are put in the order of the prompts, so that the same batch is trained on bit for
bit the same however its groups raced.
"""

from __future__ import annotations

import asyncio
import sys
from bisect import bisect_right
from collections.abc import Sequence

from actors.groups import Group
from rollout.trajectory import Prompt

ANY = sys.maxsize
"""A deadline that no group misses."""


class GroupBuffer:
    """Admission and batch formation.

    Args:
        prompts_per_step: groups in one batch.
        max_staleness: see the module's description.
        num_steps: batches that will be taken in all; nothing is admitted beyond them.
        version: weight version to begin with (number of updates done).
    """

    def __init__(self, prompts_per_step: int, max_staleness: int, num_steps: int, version: int = 0) -> None:
        self._per_step = prompts_per_step
        self._max_staleness = max_staleness
        self._last_version = num_steps
        self._version = version
        self._num_admitted = version * prompts_per_step
        self._open: dict[str, Group] = {}
        self._ready: list[Group] = []
        self._failure: BaseException | None = None
        self._changed = asyncio.Condition()

    @property
    def version(self) -> int:
        """Weight version of the latest :meth:`advance`."""
        return self._version

    @property
    def num_open(self) -> int:
        """Groups admitted and not settled."""
        return len(self._open)

    @property
    def num_ready(self) -> int:
        """Groups settled and not taken."""
        return len(self._ready)

    @property
    def open_group_ids(self) -> list[str]:
        """Groups admitted and not settled, oldest first."""
        return list(self._open)

    async def admit(self, index: int, group_id: str, prompt: Prompt, num_samples: int) -> Group | None:
        """Wait until one more group may be generated; None when the run needs no more."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._failure is not None or self.may_admit())
            if self._failure is not None:
                return None
            self._num_admitted += 1
            group = Group(index, group_id, prompt, num_samples, self._version)
            self._open[group_id] = group
            return group

    async def wait_until_wanted(self) -> bool:
        """Wait until :meth:`admit` would not wait; False when the run has failed."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._failure is not None or self.may_admit())
            return self._failure is None

    @property
    def _num_admissible(self) -> int:
        """Groups that may be admitted now; see *pacing*."""
        steps_ahead = min(self._version + self._max_staleness + 1, self._last_version)
        return steps_ahead * self._per_step - self._num_admitted

    def may_admit(self) -> bool:
        """Whether one more group may be generated now."""
        return self._num_admissible > 0

    async def settle(self, group: Group) -> None:
        """Every sample of ``group`` is scored or dropped. A group without samples gives its place back."""
        async with self._changed:
            del self._open[group.group_id]
            if group.samples:
                self._ready.append(group)
            else:
                self._num_admitted -= 1
            self._changed.notify_all()

    async def take(self, timeout_s: float) -> list[Group]:
        """The next batch of ``prompts_per_step`` groups: those that must not wait, then whoever finished first.

        Raises:
            TimeoutError: no batch within ``timeout_s``; names the groups that were waited for.
            BaseException: whatever :meth:`fail` was given.
        """
        async with self._changed:
            try:
                await asyncio.wait_for(
                    self._changed.wait_for(lambda: self._failure is not None or self._batch_is_complete()), timeout_s
                )
            except TimeoutError:
                waiting = ", ".join(self.open_group_ids[:8])
                raise TimeoutError(
                    f"no training batch within {timeout_s:g} s: {self.num_ready} of {self._per_step} groups ready, "
                    f"{self.num_open} open (oldest: {waiting or 'none'})"
                ) from None
            if self._failure is not None:
                raise self._failure
            batch = {group.index: group for group in self._choose()}
            self._ready = [group for group in self._ready if group.index not in batch]
            return [batch[index] for index in sorted(batch)]

    async def give_back(self, num_groups: int) -> None:
        """Groups that were taken are not trained on; as many others may be admitted."""
        async with self._changed:
            self._num_admitted -= num_groups
            self._changed.notify_all()

    def _batch_is_complete(self) -> bool:
        if len(self._ready) < self._per_step:
            return False
        open_deadlines = sorted(group.admitted_version + self._max_staleness for group in self._open.values())
        # The n-th open group by deadline is trained on ceil(n / P) batches after this one at the latest.
        if any(n > (due - self._version) * self._per_step for n, due in enumerate(open_deadlines, 1)):
            return False
        on_time = [self._deadline(group) for group in self._ready if not self._is_late(group)]
        if len(on_time) == len(self._ready):
            return True
        to_come = [self._version + self._max_staleness] * min(self._num_admissible, self._per_step)
        return self._late_needed(on_time) <= self._late_needed(on_time + open_deadlines + to_come)

    def _choose(self) -> list[Group]:
        """The groups of a complete batch: for each deadline no more than is owed, the rest in order of completion.

        What is owed by a deadline counts towards every later one, so filling up in this order owes late groups least.
        """
        left = sorted(self._ready, key=self._is_late)  # stable: each kind stays in order of completion
        batch: list[Group] = []
        for deadline, number in self._owed():
            due = [group for group in left if self._deadline(group) <= deadline][: max(0, number - len(batch))]
            batch += due
            taken = {group.index for group in due}
            left = [group for group in left if group.index not in taken]
        return batch

    def _owed(self) -> list[tuple[int, int]]:
        """How many groups due by a deadline the next batch must hold, by deadline; last its size, due whenever."""
        deadlines = [group.admitted_version + self._max_staleness for group in self._open.values()]
        deadlines = sorted(deadlines + [self._deadline(group) for group in self._ready])
        owed = {due: n - (due - self._version) * self._per_step for n, due in enumerate(deadlines, 1)}
        return [(due, min(n, self._per_step)) for due, n in owed.items() if n > 0] + [(ANY, self._per_step)]

    def _late_needed(self, on_time: Sequence[int]) -> int:
        """How many late groups the next batch needs if groups with the deadlines ``on_time`` may fill it as well."""
        deadlines = sorted(on_time)
        return max(0, *(number - bisect_right(deadlines, due) for due, number in self._owed()))

    def _is_late(self, group: Group) -> bool:
        """Whether training must not see ``group`` yet."""
        return group.scored_version > self._version

    def _deadline(self, group: Group) -> int:
        """The last version that may train on a settled ``group``."""
        return group.oldest_version + self._max_staleness

    async def advance(self, version: int) -> None:
        """The engines now hold weight version ``version``; more groups may be admitted."""
        async with self._changed:
            self._version = version
            self._changed.notify_all()

    async def fail(self, error: BaseException) -> None:
        """End all waiting; :meth:`take` raises ``error``."""
        async with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()
