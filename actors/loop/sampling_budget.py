"""More samples of the prompts that the policy is unsure of, at a total that is fixed and with weights that undo it."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Sequence

from actors.groups import Group
from actors.loop.config import SamplingBudgetConfig
from rollout.trajectory import original_index

NOT_ALLOTTED = "not allotted to its prompt (training.sampling_budget)"
"""Why a sample is dropped that is not asked for at all."""


class SamplingBudget:
    """Allots the samples beyond the pilots among the prompts that are under way, as soon as no other is to come.

    A transfer of AEGPO's allocation of rollouts (2602.06825) to text. There the change of a diffusion model's attention
    entropy since the start says what a prompt is worth; here it is the mean surprise ``-log pi`` of the pilots' tokens,
    whose expectation is the policy's entropy (our choice). With P prompts, ``(mean - pilot) * P`` samples are allotted
    by :func:`allot`, at least one and at most ``most - pilot`` to each.

    The gradient stays that of equal numbers, in expectation: pilots weigh 1, and the others of a prompt share the
    weight that they would have had, ``mean - pilot`` (:meth:`weigh`). How many others there are depends on the pilots,
    so a plain mean over all samples of a prompt would be biased: pilots that surprise bring others, which dilute them.

    Args:
        config: the options.
        most: samples that a prompt can get.
        may_admit: whether another prompt is about to begin.
    """

    def __init__(self, config: SamplingBudgetConfig, most: int, may_admit: Callable[[], bool]) -> None:
        self.pilot, self.mean = config.pilot, config.mean
        self._most, self._may_admit = most, may_admit
        self._undecided: set[int] = set()
        self._waiting: dict[int, tuple[float | None, asyncio.Future[int]]] = {}

    def begin(self, group: Group) -> None:
        """The group's pilots are about to be sampled; to be called as soon as it is admitted."""
        self._undecided.add(group.index)

    async def further(self, group: Group) -> int:
        """How many samples the group gets beside its pilots, which are done; waits for the pilots of others."""
        known = [sample.summary.surprise for sample in group.samples]
        decided: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[group.index] = (sum(known) / len(known) if known else None, decided)
        self._undecided.discard(group.index)
        self._decide()
        return await decided

    def _decide(self) -> None:
        if self._undecided or self._may_admit():
            return
        waiting, self._waiting = sorted(self._waiting.items()), {}
        known = [surprise for _, (surprise, _) in waiting if surprise is not None]
        typical = sum(known) / len(known) if known else 0.0
        surprises = [typical if surprise is None else surprise for _, (surprise, _) in waiting]
        numbers = allot(surprises, (self.mean - self.pilot) * len(waiting), 1, self._most - self.pilot)
        for (_, (_, decided)), number in zip(waiting, numbers, strict=True):
            if not decided.done():
                decided.set_result(number)

    def weigh(self, group: Group, first: int, number: int) -> None:
        """Set the weights of a group's samples, from index ``first`` on, of which ``number`` are no pilots."""
        for sample in group.samples:
            is_pilot = original_index(sample.reward.sample_index) < first + self.pilot
            sample.weight = 1.0 if is_pilot else (self.mean - self.pilot) / number


def allot(surprises: Sequence[float], total: int, least: int, most: int) -> list[int]:
    """``total`` samples over prompts, ``least`` to ``most`` each: the next one to whoever has most surprise per sample.

    That is in proportion to surprise within the bounds, up to rounding. Of equal claims the first prompt's goes first.

    Raises:
        ValueError: so many cannot be allotted.
    """
    if not least * len(surprises) <= total <= most * len(surprises):
        raise ValueError(f"{total} samples cannot be allotted to {len(surprises)} prompts, {least} to {most} each")
    numbers = [least] * len(surprises)
    claims = [(-surprise / (least + 1), place) for place, surprise in enumerate(surprises) if least < most]
    heapq.heapify(claims)
    for _ in range(total - least * len(surprises)):
        _, place = heapq.heappop(claims)
        numbers[place] += 1
        if numbers[place] < most:
            heapq.heappush(claims, (-surprises[place] / (numbers[place] + 1), place))
    return numbers
