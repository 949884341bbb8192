"""Responses put behind other prompts: states that the policy would not visit, for critics that learn from contrast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rollout.trajectory import ScoredTrajectory


def mismatched(samples: Sequence[ScoredTrajectory]) -> list[ScoredTrajectory]:
    """For each trajectory its prompt, followed by the response of a trajectory of another prompt (our choice).

    The prompt is everything before the first sampled token and the response the rest, observations included. Partners
    are fixed by the order of the global batch: the first trajectory of another group from half a batch further on. A
    response is cut where it would make the row longer than it was, so that a plan of micro-batches still fits. Without
    another group, or where nothing sampled is left, nothing of the row is marked as sampled.
    """
    return [_with_other_response(sample, _partner(samples, i)) for i, sample in enumerate(samples)]


def _partner(samples: Sequence[ScoredTrajectory], index: int) -> ScoredTrajectory | None:
    """A trajectory of another group, the same on every rank; None if there is none."""
    start, number = index + len(samples) // 2, len(samples)
    others = (samples[(start + k) % number] for k in range(number))
    return next((other for other in others if other.group_id != samples[index].group_id), None)


def _with_other_response(sample: ScoredTrajectory, other: ScoredTrajectory | None) -> ScoredTrajectory:
    """The prompt of one and the response of the other, at most as long as the first was."""
    mine = sample.trajectory
    if other is None or True not in mine.action_mask or True not in other.trajectory.action_mask:
        silent = replace(mine, action_mask=(False,) * len(mine.token_ids))
        return replace(sample, trajectory=silent)
    cut, start = mine.action_mask.index(True), other.trajectory.action_mask.index(True)
    room = slice(start, start + len(mine.token_ids) - cut)
    trajectory = replace(
        mine,
        token_ids=tuple(mine.token_ids[:cut]) + tuple(other.trajectory.token_ids[room]),
        action_mask=(False,) * cut + tuple(other.trajectory.action_mask[room]),
        rollout_logprobs=(0.0,) * cut + tuple(other.trajectory.rollout_logprobs[room]),
    )
    return replace(sample, trajectory=trajectory)
