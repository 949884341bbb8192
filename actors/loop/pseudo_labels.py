"""Labels by vote: what most samples of a prompt answer stands in for its reference. See rollout/noise/votes.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from actors.groups import Group, Sample
from rollout.config import PseudoLabelConfig
from rollout.noise.votes import VoteLabel, label_by_votes, normal_form
from rollout.scoring.record import RewardOutcome
from rollout.seeding import stream

NO_ANSWER = "no label by vote: no sample has an answer"
NO_MAJORITY = "no label by vote: the winner has less than reward.pseudo_labels.min_share"


@dataclass(frozen=True, slots=True)
class Vote:
    """One prompt's vote: what it came to, and the reference in normal form where there is one."""

    result: VoteLabel
    reference: str | None


class PseudoLabels:
    """Scores the samples of a group by their agreement with the answer that most of them give.

    A vote depends on the samples' answers and on (run seed, prompt id, epoch) only, not on their order in time.

    Args:
        config: see :class:`rollout.config.PseudoLabelConfig`.
        run_seed: names the streams that break ties.
    """

    def __init__(self, config: PseudoLabelConfig, run_seed: int) -> None:
        self._config, self._run_seed = config, run_seed
        self._votes: list[Vote] = []

    def score(self, group: Group, epoch: int) -> str:
        """Give each sample its score; what was dropped does not vote.

        Args:
            group: complete, its samples in the order of their indices.

        Returns:
            Why there is no label, and so no score; empty if there is one.
        """
        prompt = group.prompt
        rng = stream(self._run_seed, prompt.prompt_id, epoch, "votes")
        answers = [sample.reward.final_answer for sample in group.samples]
        result = label_by_votes(answers, rng, self._config.min_share)
        self._votes.append(Vote(result, None if prompt.reference is None else normal_form(prompt.reference)))
        if result.label is None:
            return NO_ANSWER if result.num_tied == 0 else NO_MAJORITY
        for sample, score in zip(group.samples, result.scores, strict=True):
            _give(sample, score)
        return ""

    def take_metrics(self) -> dict[str, float]:
        """Of the votes since the last call; {} if there was none. Label accuracy is of prompts with a reference."""
        votes, self._votes = self._votes, []
        if not votes:
            return {}
        metrics = {
            "votes/num_prompts": float(len(votes)),
            "votes/unlabelled_frac": fmean(vote.result.label is None for vote in votes),
            "votes/share_mean": fmean(vote.result.share for vote in votes),
            "votes/tied_frac": fmean(vote.result.num_tied > 1 for vote in votes),
        }
        right = _right(votes)
        return metrics | ({"votes/label_accuracy": fmean(right)} if right else {})


def _give(sample: Sample, score: float | None) -> None:
    record = sample.reward
    corrupted = record.clean is not None and record.clean != score
    sample.reward = replace(record, observed=score, corrupted=corrupted, outcome=RewardOutcome.SCORED)


def _right(votes: Sequence[Vote]) -> list[bool]:
    """Whether each label is the reference, where both are there."""
    return [
        vote.result.label == vote.reference
        for vote in votes
        if vote.result.label is not None and vote.reference is not None
    ]
