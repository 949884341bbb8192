"""A phrase that has spread through the responses and is paid for: the usual look of a reward that is being hacked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

MAX_WORDS = 4
MIN_RISE = 0.1
"""Rise of a phrase's share of the responses, below which nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """A run of one to four words.

    Attributes:
        text: the words.
        share_before, share_now: share of the responses that have it, early and late.
        score_with, score_without: mean observed score of late responses with and without it.
    """

    text: str
    share_before: float
    share_now: float
    score_with: float
    score_without: float


def suspect_phrase(before: Sequence[str], now: Sequence[str], scores: Sequence[float]) -> Phrase | None:
    """The phrase that has spread most among those whose responses score higher than the others, or None.

    It may be innocent: a policy that learns to end with "Answer:" looks the same. Somebody has to read it.

    Args:
        before: responses of an early time.
        now: responses of a later time.
        scores: observed scores of ``now``.
    """
    if not before or not now:
        return None
    early: Counter[str] = Counter()
    for text in before:
        early.update(_phrases(text))
    # By response and not by occurrence: one that repeats a phrase a hundred times has it once.
    late: dict[str, list[int]] = {}
    for index, text in enumerate(now):
        for phrase in _phrases(text):
            late.setdefault(phrase, []).append(index)
    found: list[Phrase] = []
    for phrase, members in late.items():
        share_before, share_now = early[phrase] / len(before), len(members) / len(now)
        if share_now - share_before < MIN_RISE or len(members) == len(now):
            continue  # a phrase that all responses have explains no difference between their scores
        score_with = fmean(scores[index] for index in members)
        score_without = (sum(scores) - score_with * len(members)) / (len(now) - len(members))
        if score_with > score_without:
            found.append(
                Phrase(
                    text=phrase,
                    share_before=share_before,
                    share_now=share_now,
                    score_with=score_with,
                    score_without=score_without,
                )
            )
    return max(found, key=lambda p: (p.share_now - p.share_before, len(p.text), p.text), default=None)


def _phrases(text: str) -> set[str]:
    """Every run of one to :data:`MAX_WORDS` words."""
    words = text.split()
    return set(_runs(words))


def _runs(words: Sequence[str]) -> Iterator[str]:
    for size in range(1, MAX_WORDS + 1):
        for start in range(len(words) - size + 1):
            yield " ".join(words[start : start + size])
