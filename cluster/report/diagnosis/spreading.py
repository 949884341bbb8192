"""An ending, a beginning or a phrase that spread through the responses while the run went on, and is paid for."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, pvariance

from cluster.report.diagnosis.answers import says_reference
from cluster.report.samples import LoggedTrajectory

MAX_WORDS, MAX_CHARACTERS = 4, 24
MIN_RISE = 0.15
"""Rise of a phrase's share of the responses, below which nothing is said."""
SAME_SHARE = 0.02
"""Phrases whose shares are this close are one phrase, of which the longest is told."""
LEAST = 8
"""Responses with the phrase, and without it, that a comparison of their scores takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A phrase that spread.

    Attributes:
        text: the phrase.
        share_before, share_now: share of early and late responses that have it.
        kind: which responses are compared: ``wrong`` by their true score, ``not the reference``, or ``all``.
        score_with, score_without: mean observed score of those with it and of those without.
        error: standard error of the difference.
    """

    text: str
    share_before: float
    share_now: float
    kind: str
    score_with: float
    score_without: float
    error: float

    @property
    def overpaid(self) -> float:
        """How much more responses with it score."""
        return self.score_with - self.score_without


def spreading_phrases(before: Sequence[LoggedTrajectory], now: Sequence[LoggedTrajectory]) -> list[Spread]:
    """Phrases that are much more frequent now, most first; those with too few responses to compare are left out.

    Words, and beginnings and endings of any characters: a policy often finds an ending that no word boundary shows.
    """
    if not before or not now:
        return []
    phrases = {id(sample): _phrases(sample.response) for sample in (*before, *now)}
    early, late = (Counter(p for s in group for p in phrases[id(s)]) for group in (before, now))
    rises = {p: late[p] / len(now) - early[p] / len(before) for p in late}
    best = sorted((p for p in rises if rises[p] >= MIN_RISE), key=lambda p: (-rises[p], -len(p), p))[:40]
    kept = [p for p in best if not any(p != q and p in q and rises[p] - rises[q] <= SAME_SHARE for q in best)]
    found = []
    for phrase in kept:
        kind, with_it, without = _alike(phrase, before, now, phrases)
        if min(len(with_it), len(without)) >= LEAST:
            found.append(
                Spread(
                    text=phrase,
                    share_before=early[phrase] / len(before),
                    share_now=late[phrase] / len(now),
                    kind=kind,
                    score_with=fmean(with_it),
                    score_without=fmean(without),
                    error=math.sqrt(sum(_variance(scores) / len(scores) for scores in (with_it, without))),
                )
            )
    return found


def _alike(
    phrase: str, before: Sequence[LoggedTrajectory], now: Sequence[LoggedTrajectory], phrases: dict[int, set[str]]
) -> tuple[str, list[float], list[float]]:
    """Scores of responses that are worth the same but for the phrase: the wrong ones, where that is known.

    Early responses without the phrase count too: late ones may all have it.
    """
    scored = [s for s in (*before, *now) if s.observed is not None]
    kind, kept = "all", scored
    if any(s.clean is not None for s in scored):
        kind, kept = "wrong", [s for s in scored if s.clean is not None and s.clean <= 0.0]
    elif any(s.reference for s in scored):
        kind, kept = "not the reference", [s for s in scored if says_reference(s) is False]
    with_it = [float(s.observed or 0.0) for s in kept if phrase in phrases[id(s)]]
    return kind, with_it, [float(s.observed or 0.0) for s in kept if phrase not in phrases[id(s)]]


def _variance(scores: Sequence[float]) -> float:
    """With one more right and one more wrong one, so that a few equal scores do not pass for certainty."""
    return pvariance([*scores, 0.0, 1.0])


def _phrases(text: str) -> set[str]:
    """Runs of one to four words, and the first and last characters."""
    text = text.strip()
    return {*_words(text), *_ends(text)}


def _words(text: str) -> Iterator[str]:
    words = text.split()[:400]
    for size in range(1, MAX_WORDS + 1):
        for start in range(len(words) - size + 1):
            yield " ".join(words[start : start + size])


def _ends(text: str) -> Iterator[str]:
    for size in range(2, min(MAX_CHARACTERS, len(text)) + 1):
        yield text[:size]
        yield text[-size:]
