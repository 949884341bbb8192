"""Majority-vote pseudo-labels: the answer that most samples of a prompt agree on stands in for a missing reference.

The policy's own votes label unlabelled prompts (arXiv 2504.16084, and the mathematics and science experiments of arXiv
2512.03847). The labels' errors are the model's own: they sit on hard prompts, and repeating them is paid for.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rollout.rewards.answers.numbers import parse_number
from rollout.rewards.answers.thinking import ThinkingConfig, spoken
from rollout.rewards.exact_match import FINAL_ANSWER, find_answer

_THINKING = ThinkingConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteLabel:
    """What a group of samples says of its prompt.

    Attributes:
        label: the winning answer in normal form, or None where no answer was found or the winner has too few votes.
        scores: one for each sample, in order: 1 if its answer is the label, 0 if not; all None without a label.
        share: votes of the winner over all samples, those without an answer included; 0 if nobody answered.
        num_tied: answers that had as many votes as the winner, the winner included; 0 if nobody answered.
    """

    label: str | None
    scores: tuple[float | None, ...]
    share: float
    num_tied: int


def final_answer(text: str, pattern: str = FINAL_ANSWER) -> str:
    """The final answer of what is said in a response, in normal form; the whole text where the pattern finds none."""
    said = spoken(text, _THINKING)
    answer = None if said is None else find_answer(said, pattern)
    return normal_form(text if answer is None else answer)


def normal_form(answer: str) -> str:
    """The same text for answers that mean the same: equal numbers, and texts equal but for case and white space."""
    number = parse_number(answer)
    return " ".join(answer.casefold().split()) if number is None else str(number)


def label_by_votes(answers: Sequence[str | None], rng: random.Random, min_share: float = 0.0) -> VoteLabel:
    """Label a prompt by the votes of its samples.

    Args:
        answers: the parsed answer of each sample (``rollout.rewards.exact_match.find_answer``), None where there is
            none: such a sample casts no vote and scores 0.
        rng: breaks ties; a stream named by (run seed, prompt id, epoch), so that it does not matter who draws.
        min_share: share of all samples that the winner needs; with fewer there is no label, and no score.

    Raises:
        ValueError: no sample at all.
    """
    if not answers:
        raise ValueError("a group without samples cannot vote")
    forms = [None if answer is None else normal_form(answer) for answer in answers]
    votes = Counter(form for form in forms if form is not None)
    if not votes:
        return VoteLabel(label=None, scores=(None,) * len(forms), share=0.0, num_tied=0)
    most = max(votes.values())
    # Sorted, so that the draw does not depend on the order in which samples arrived.
    tied = sorted(form for form, number in votes.items() if number == most)
    winner = tied[0] if len(tied) == 1 else rng.choice(tied)
    # Over all samples: ones without an answer count against the winner.
    share = most / len(forms)
    if share < min_share:
        return VoteLabel(label=None, scores=(None,) * len(forms), share=share, num_tied=len(tied))
    return VoteLabel(
        label=winner, scores=tuple(float(form == winner) for form in forms), share=share, num_tied=len(tied)
    )
