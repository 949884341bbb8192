"""Which groups may be generated, and which are trained on next: the bound on staleness lives here.

A *group* is one prompt with its samples. Groups are admitted (generation may begin), settled (every sample is scored
or dropped) and taken (they form a training batch). Two rules keep every trajectory within ``max_staleness`` updates of
the weights that sampled it, without ever throwing finished work away:

* *pacing*: at weight version v at most ``(v + max_staleness + 1) * prompts_per_step`` groups have been admitted;
* *no overtaking past the bound*: a batch is complete only when it holds every group that would be too old for the next
  one. Other places go to whoever finished first.

A score may arrive late on purpose (the noise model ``delay``): its group is left for a later batch, as long as others
can fill this one and it does not grow too old.

So slow (long) responses are waited for rather than dropped, and the data are not biased towards short ones. The groups
of a batch, once chosen, are put in the order of the prompts, so that the same batch is trained on bit for bit the same
however its groups raced.
"""

from __future__ import annotations

import asyncio

from actors.groups import Group
from rollout.trajectory import Prompt


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
            await self._changed.wait_for(lambda: self._failure is not None or self._may_admit())
            if self._failure is not None:
                return None
            self._num_admitted += 1
            group = Group(index, group_id, prompt, num_samples, self._version)
            self._open[group_id] = group
            return group

    async def wait_until_wanted(self) -> bool:
        """Wait until :meth:`admit` would not wait; False when the run has failed."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._failure is not None or self._may_admit())
            return self._failure is None

    def _may_admit(self) -> bool:
        steps_ahead = min(self._version + self._max_staleness + 1, self._last_version)
        return self._num_admitted < steps_ahead * self._per_step

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
        """The next batch of ``prompts_per_step`` groups: those finished first, oldest weights first.

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
            by_age = sorted(self._ready, key=lambda group: (not self._expires(group), self._is_late(group)))
            batch = {group.index: group for group in by_age[: self._per_step]}
            self._ready = [group for group in self._ready if group.index not in batch]
            return [batch[index] for index in sorted(batch)]

    async def give_back(self, num_groups: int) -> None:
        """Groups that were taken are not trained on; as many others may be admitted."""
        async with self._changed:
            self._num_admitted -= num_groups
            self._changed.notify_all()

    def _batch_is_complete(self) -> bool:
        if len(self._ready) < self._per_step or any(self._expires(group) for group in self._open.values()):
            return False
        if not self._open and not self._may_admit():
            return True  # nothing else will come, so late scores arrive now
        return sum(self._expires(group) or not self._is_late(group) for group in self._ready) >= self._per_step

    def _is_late(self, group: Group) -> bool:
        """Whether training must not see ``group`` yet."""
        return group.due_version > self._version

    def _expires(self, group: Group) -> bool:
        """Whether ``group`` would be too old for the batch after this one."""
        return group.admitted_version <= self._version - self._max_staleness

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
