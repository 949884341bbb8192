"""How sure a comparison of runs is. Scores are arrays ``[seeds]`` or ``[seeds tasks]``; runs with one seed are paired.

Intervals rest on seeds alone: they say what other seeds of the same cells would give, not what other tasks would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval; NaN ends where the runs are too few for one."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval is on one side of 0."""
        return self.low > 0.0 or self.high < 0.0


def mean_interval(scores: Scores, confidence: float = 0.95) -> Estimate:
    """Mean and Student t interval (``scipy.stats.t``) of at least two scores; of one, no interval."""
    mean = float(np.mean(scores))
    if len(scores) < 2:
        return Estimate(mean, np.nan, np.nan)
    half = float(stats.t.ppf(0.5 + confidence / 2, len(scores) - 1) * stats.sem(scores))
    return Estimate(mean, mean - half, mean + half)


def paired_difference(ours: Scores, theirs: Scores, confidence: float = 0.95) -> Estimate:
    """Mean of ``ours - theirs`` with its t interval, as ``scipy.stats.ttest_rel`` has it; equal places are one seed.

    Raises:
        ValueError: not as many of one as of the other.
    """
    _require_pairs(ours, theirs)
    return mean_interval(ours - theirs, confidence)


def interquartile_mean(scores: Scores) -> float:
    """Mean of the middle half of all scores (``scipy.stats.trim_mean`` with a quarter cut on each side)."""
    return float(stats.trim_mean(np.ravel(scores), 0.25))


def stratified_bootstrap(
    scores: Scores, confidence: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> Estimate:
    """Interquartile mean over seeds and tasks, with a percentile interval of a bootstrap stratified by task.

    Each resample draws as many seeds anew within each task, so that no task weighs more than it does (Agarwal et al.,
    2021, arXiv 2108.13264, section 4.1).

    Args:
        scores: ``[seeds tasks]``; one task may be ``[seeds]``.
        seed: of the resamples.
    """
    table = scores[:, None] if scores.ndim == 1 else scores
    value = interquartile_mean(table)
    if len(table) < 2:
        return Estimate(value, np.nan, np.nan)
    rng = np.random.default_rng(seed)
    draws = rng.integers(len(table), size=(num_resamples, *table.shape))
    resampled = table[draws, np.arange(table.shape[1])].reshape(num_resamples, -1)
    means = stats.trim_mean(resampled, 0.25, axis=1)
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Estimate(value, float(low), float(high))


def share_of_gap(
    scores: Scores,
    floor: Scores,
    ceiling: Scores,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """How much of the way from ``floor`` to ``ceiling`` was made.

    The mean of ``scores - floor`` over that of ``ceiling - floor``, since single seeds may have no gap. The percentile
    interval is of a bootstrap over paired seeds, without ends if a resample has no gap at all.

    Args:
        scores, floor, ceiling: ``[seeds]``, equal places are one seed.
        seed: of the resamples.

    Raises:
        ValueError: not as many of one as of the others.
    """
    _require_pairs(scores, floor)
    _require_pairs(scores, ceiling)
    made, whole = scores - floor, ceiling - floor
    if np.mean(whole) <= 0.0:
        return Estimate(np.nan, np.nan, np.nan)
    value = float(np.mean(made) / np.mean(whole))
    if len(scores) < 2:
        return Estimate(value, np.nan, np.nan)
    draws = np.random.default_rng(seed).integers(len(scores), size=(num_resamples, len(scores)))
    ways = whole[draws].mean(axis=1)
    if ways.min() <= 0.0:
        return Estimate(value, np.nan, np.nan)
    low, high = np.quantile(made[draws].mean(axis=1) / ways, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Estimate(value, float(low), float(high))


def simultaneous_differences(
    methods: Mapping[str, Scores], baseline: str, confidence: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> dict[str, Estimate]:
    """Paired differences to ``baseline`` whose intervals hold all at once with the given confidence.

    The half width is a common multiple of each difference's standard error: the quantile of the largest absolute
    studentised difference over methods, when seeds are drawn anew together for all methods, so that what the methods
    have in common counts (max-t; Romano and Wolf 2005). It is at least Student's t for one interval, and at most
    Bonferroni's, which stands in where there are fewer than 5 seeds: too few to draw from.

    Args:
        methods: scores ``[seeds]`` by name, the baseline's among them; equal places are one seed.

    Returns:
        By method, without the baseline; with one seed, values without intervals.

    Raises:
        ValueError: not as many scores of one method as of another.
    """
    for scores in methods.values():
        _require_pairs(scores, methods[baseline])
    names = [name for name in methods if name != baseline]
    if not names:
        return {}
    differences = np.stack([methods[name] - methods[baseline] for name in names], axis=1)
    num_seeds = len(differences)
    means = differences.mean(axis=0)
    if num_seeds < 2:
        return {name: Estimate(float(mean), np.nan, np.nan) for name, mean in zip(names, means, strict=True)}
    errors = stats.sem(differences, axis=0)
    multiple = _max_t(differences, confidence, num_resamples, seed)
    return {
        name: Estimate(float(mean), float(mean - multiple * error), float(mean + multiple * error))
        for name, mean, error in zip(names, means, errors, strict=True)
    }


def bonferroni_t(num_seeds: int, num_methods: int, confidence: float) -> float:
    """Multiple of the standard error for ``num_methods`` t intervals that hold all at once."""
    return float(stats.t.ppf(1.0 - (1.0 - confidence) / (2 * num_methods), num_seeds - 1))


MIN_SEEDS_TO_DRAW_FROM = 5


def _max_t(differences: Scores, confidence: float, num_resamples: int, seed: int) -> float:
    num_seeds, num_methods = differences.shape
    widest = bonferroni_t(num_seeds, num_methods, confidence)
    if num_seeds < MIN_SEEDS_TO_DRAW_FROM:
        return widest
    rng = np.random.default_rng(seed)
    drawn = differences[rng.integers(num_seeds, size=(num_resamples, num_seeds))]
    errors = drawn.std(axis=1, ddof=1) / np.sqrt(num_seeds)
    centred = np.abs(drawn.mean(axis=1) - differences.mean(axis=0))
    # A resample without any spread says nothing; with a method that never differs it is so for all of them.
    studentised = np.divide(centred, errors, out=np.zeros_like(centred), where=errors > 0.0).max(axis=1)
    return float(np.clip(np.quantile(studentised, confidence), bonferroni_t(num_seeds, 1, confidence), widest))


def sign_flip_p_value(differences: Scores) -> float:
    """Two-sided p value of paired differences if their signs were accidents (``scipy.stats.permutation_test``)."""
    found = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=10_000, rng=np.random.default_rng(0)
    )
    return float(found.pvalue)


def _require_pairs(ours: Scores, theirs: Scores) -> None:
    if ours.shape != theirs.shape:
        raise ValueError(f"pairs need as many scores of one as of the other (got {ours.shape} and {theirs.shape})")
