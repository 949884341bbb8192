"""Earlier prompts with all their samples, kept to be trained on again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from rollout.trajectory import FinishReason, ScoredTrajectory, TokenTrajectory

_PREFIX = "replay:"


class ReplayBuffer:
    """The groups of the last updates, oldest first. It sees the whole global batch, so it is the same on every rank.

    Args:
        capacity: groups kept.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.groups: list[list[ScoredTrajectory]] = []

    def draw(self, number: int, seed: int) -> list[ScoredTrajectory]:
        """The samples of at most ``number`` different groups, in the order they were added."""
        chosen = random.Random(seed).sample(range(len(self.groups)), min(number, len(self.groups)))
        return [sample for index in sorted(chosen) for sample in self.groups[index]]

    def add(self, samples: Sequence[ScoredTrajectory]) -> None:
        """Keep a batch. Group names get a prefix, so that no fresh group ever shares one with a replayed group."""
        groups: dict[str, list[ScoredTrajectory]] = {}
        for sample in samples:
            kept = replace(sample, group_id=_PREFIX + sample.group_id)
            groups.setdefault(kept.group_id, []).append(kept)
        self.groups = [*self.groups, *groups.values()][-self.capacity :]

    def state_dict(self) -> list[list[dict[str, Any]]]:
        """Everything as plain types, for the checkpoint."""
        return [[_plain(sample) for sample in group] for group in self.groups]

    def load_state_dict(self, state: list[list[dict[str, Any]]]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.groups = [[_sample(plain) for plain in group] for group in state]


def _plain(sample: ScoredTrajectory) -> dict[str, Any]:
    trajectory = {f.name: getattr(sample.trajectory, f.name) for f in fields(sample.trajectory)}
    trajectory["finish_reason"] = sample.trajectory.finish_reason.value
    return {
        "trajectory": trajectory,
        "reward": sample.reward,
        "group_id": sample.group_id,
        "question_key": sample.question_key,
        "answer_key": sample.answer_key,
        "gold_label": sample.gold_label,
    }


def _sample(plain: dict[str, Any]) -> ScoredTrajectory:
    # By name, because checkpoints of earlier versions hold more than the tokens.
    known: dict[str, Any] = {f.name: plain["trajectory"][f.name] for f in fields(TokenTrajectory)}
    known["finish_reason"] = FinishReason(known["finish_reason"])
    label = {key: value for key, value in plain.items() if key != "trajectory"}  # earlier ones have no key and no gold
    return ScoredTrajectory(trajectory=TokenTrajectory(**known), **label)
