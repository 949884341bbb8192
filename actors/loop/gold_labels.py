"""True scores that training asks for: of answers about which the samples of a prompt disagree."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from actors.groups import Group, Sample
from actors.pools.reward_pool import RewardPool
from rollout.config import DISPUTED_SHARE, GoldLabelConfig
from rollout.scoring.record import RewardRecord

log = logging.getLogger(__name__)

MAX_KNOWN = 1_000_000
"""Answers whose true score is remembered here; the oldest are forgotten and may be asked about again."""

CellName = tuple[str, str]
"""A question, and one answer to it: true scores of its responses are equal."""


@dataclass(frozen=True, slots=True)
class Question:
    """What may be asked next in a group.

    Attributes:
        stage: the smaller, the sooner: 0 where nothing of the group is known, 1 where no right answer is, else 2.
        num_pairs: pairs of the group's samples of which one has this answer and the other has not.
        cell: the answer.
        sample: one that gives it.
    """

    stage: int
    num_pairs: int
    cell: CellName
    sample: Sample


class Dispute:
    """The answers of one group, and what is known of them.

    Args:
        group: complete.
        known: true scores of answers.
    """

    def __init__(self, group: Group, known: Mapping[CellName, float]) -> None:
        self.group, self.asked = group, set[CellName]()
        self._known = known
        self._cells: dict[CellName, list[Sample]] = {}
        for sample in group.samples:
            self._cells.setdefault(cell_name(sample.reward), []).append(sample)

    def next_question(self) -> Question | None:
        """The answer whose true score tells most pairs of samples apart; the first one of several.

        Where all samples agree there is none: whatever the true score is, no sample is better than another.
        """
        left = [cell for cell in self._cells if cell not in self._known and cell not in self.asked]
        if len(self._cells) < 2 or not left:
            return None
        cell = max(left, key=self._num_pairs)
        found = [self._known[cell] for cell in self._cells if cell in self._known]
        # Scores of wrong answers are 0 or below.
        stage = 0 if not found else 1 if max(found) <= 0.0 else 2
        return Question(stage, self._num_pairs(cell), cell, self._cells[cell][0])

    def _num_pairs(self, cell: CellName) -> int:
        size = len(self._cells[cell])
        return size * (len(self.group.samples) - size)


def cell_name(record: RewardRecord) -> CellName:
    """Of a response's answer; one that nothing can read stands for itself."""
    question = record.question_key or record.prompt_id
    return question, record.answer_key or f"{record.prompt_id}#{record.sample_index}"


class DisputedLabels:
    """Spends ``reward.gold_labels`` where it tells most: batch by batch, on answers that samples disagree about.

    What is asked depends on answers and on labels only and never on scores, so error rates estimated from these labels
    are those of the scores. What a batch has no use for is kept for later ones. The rest of the share is drawn at
    random where responses are scored.

    Args:
        config: how many.
        rewards: tell the true score.
        state: what :meth:`state` gave, to go on exactly from there; None for a new run.
    """

    def __init__(self, config: GoldLabelConfig, rewards: RewardPool, state: Mapping[str, Any] | None = None) -> None:
        self._config, self._rewards = config, rewards
        kept = state or {}
        self._budget = float(kept.get("budget", 0.0))
        self._known: dict[CellName, float] = {(question, answer): v for question, answer, v in kept.get("known", ())}

    def state(self) -> dict[str, Any]:
        """Everything remembered, as JSON."""
        return {"budget": self._budget, "known": [[*cell, score] for cell, score in self._known.items()]}

    async def label(self, groups: Sequence[Group]) -> dict[str, float]:
        """Put true scores into the records of some samples of a batch; returns them by trajectory id."""
        samples = [sample for group in groups for sample in group.samples]
        shares = (self._config.share_at(sample.summary.policy_version_min) for sample in samples)
        self._budget += DISPUTED_SHARE * sum(shares)
        for sample in samples:
            if (score := sample.reward.gold_label) is not None:  # drawn at random
                self._learn(sample, score)
        disputes = [Dispute(group, self._known) for group in groups]
        labelled: dict[str, float] = {}
        # One question a group and round: what the next one is depends on the answer.
        while questions := self._next_round(disputes):
            self._budget -= len(questions)
            await asyncio.gather(*(self._ask(dispute.group, sample) for dispute, sample in questions))
            for _, sample in questions:
                if (score := sample.reward.gold_label) is not None:
                    labelled[sample.summary.trajectory_id] = score
                    self._learn(sample, score)
        return labelled

    def _next_round(self, disputes: Sequence[Dispute]) -> list[tuple[Dispute, Sample]]:
        """The most telling questions among those that come first, as many as there is budget for."""
        open_ones = [(dispute, question) for dispute in disputes if (question := dispute.next_question()) is not None]
        if not open_ones:
            return []
        first = min(question.stage for _, question in open_ones)
        # One cell may be in two groups, of rows that ask the same: it is asked about once.
        of_cell = {question.cell: (dispute, question) for dispute, question in open_ones if question.stage == first}
        ranked = sorted(of_cell.values(), key=lambda entry: -entry[1].num_pairs)  # stable: then the prompts' order
        chosen = ranked[: int(self._budget + 1e-6)]  # a sum of shares may miss a whole number by a little
        for dispute, question in chosen:
            dispute.asked.add(question.cell)
        return [(dispute, question.sample) for dispute, question in chosen]

    async def _ask(self, group: Group, sample: Sample) -> None:
        """Put the true score into the sample's record; where nothing tells it, training goes on without."""
        record = sample.reward
        if record.clean is None:
            told = await self._rewards.clean_score(group.prompt, sample.trajectory)
            if told.clean is None:
                log.warning("gold gave no score for prompt %s: %s", record.prompt_id, told.error)
            record = replace(record, clean=told.clean, gold_error="" if told.clean is not None else told.error)
        sample.reward = replace(record, gold_label=record.clean)

    def _learn(self, sample: Sample, score: float) -> None:
        self._known[cell_name(sample.reward)] = score
        while len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]
