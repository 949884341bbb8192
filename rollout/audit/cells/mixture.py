"""Best-fitting error rates of a reward: the maximum of the marginal likelihood of all cells, by EM.

What is not seen is whether each cell is right and what its verdict is. Given the rates, both have a posterior
(:mod:`rollout.audit.cells.posterior`); given the posteriors, each rate is a share of counts. Beta priors add counts.

Cells of equal counts are alike, so independent cells are collapsed to a table of distinct counts with a weight each;
the iteration then costs the same for ten cells and for a million, and runs for all resamples of a bootstrap at once.
Cells that exclude each other are tied to their prompt: there every cell is a row, and the weights are those of prompts.

A policy gives the right answer more often than any one wrong one, so cells with many calls are right more often than
cells with few. Independent cells have a share of right ones for each bin of calls: with one for all, the fit explains
the difference by errors of the reward (on a run of the demo with 30 % flips, by .05).

The plain iteration is slow where the two kinds of cell overlap, so pairs of its steps are extrapolated (SQUAREM,
Varadhan and Roland 2008, scheme S3), in log-odds; what does not raise the penalised likelihood is replaced by the plain
step, which always does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rollout.audit.cells.counts import Array, CellCounts, IntArray
from rollout.audit.cells.posterior import PERFECT_GOLD, GoldNoise

RHO_PLUS, RHO_MINUS, PI_PLUS, PI_MINUS, SHARE = range(5)
"""Columns of parameters; from :data:`SHARE` on, one for each bin of calls."""
BINS = (2.5, 5.5, 11.5, 23.5, 47.5)
"""Calls between the bins of independent cells."""
LEAST = 1e-9
"""Rates stay this far from 0 and 1, where log-odds end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How the maximum is looked for.

    Attributes:
        prior_errors, prior_correct: a and b of the Beta(a, b) prior of each error rate, both >= 1: the fit is the mode.
        damping: share of the old rates kept in each plain step, in [0, 1). The maximum does not depend on it.
        max_sweeps: accelerated steps at most.
        tolerance: largest change of a rate in a plain step at which the search ends.
    """

    prior_errors: float = 1.0
    prior_correct: float = 2.0
    damping: float = 0.0
    max_sweeps: int = 300
    tolerance: float = 1e-7

    def __post_init__(self) -> None:
        """Raise ValueError for settings without a mode or an end."""
        if self.prior_errors < 1.0 or self.prior_correct < 1.0:
            raise ValueError("prior_errors and prior_correct must be at least 1, else the likelihood has no maximum")
        if not 0.0 <= self.damping < 1.0:
            raise ValueError(f"damping must be in [0, 1), got {self.damping}")
        if self.max_sweeps < 1 or not self.tolerance > 0.0:
            raise ValueError("max_sweeps and tolerance must be positive")


DEFAULT_FIT = FitSettings()
STARTS = ((0.1, 0.1), (0.3, 0.3), (0.4, 0.1), (0.1, 0.4))
"""Transient rates from which the maximum is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Rows of counts to be fitted.

    Attributes:
        calls, ones: [row].
        log_gold: [row 2] log-probability of the row's gold label if it is wrong, and if it is right; 0 without one.
        groups: [row] prompt of each row in ascending order where cells exclude each other, else None.
        bins: [row] which share it has, without gaps.
        is_in: [row share] 1 where the row has that share, else 0.
        row_of_cell: [cell] row of each of the cells it was made of.
        prompt_of_cell: [cell] without gaps.
        num_prompts: of those.
        persistent: whether persistent rates are fitted, else they stay as they start.
        anchored: whether gold says which rows are right, so that rho_plus + rho_minus may exceed 1.
    """

    calls: Array
    ones: Array
    log_gold: Array
    groups: IntArray | None
    bins: IntArray
    is_in: Array
    row_of_cell: IntArray
    prompt_of_cell: IntArray
    num_prompts: int
    persistent: bool
    anchored: bool = False

    @classmethod
    def of(
        cls,
        counts: CellCounts,
        *,
        exclusive: bool,
        persistent: bool,
        anchored: bool = False,
        gold_noise: GoldNoise = PERFECT_GOLD,
    ) -> Mixture:
        """Collapse cells of equal counts, or sort them by prompt where they exclude each other."""
        prompts, num = counts.dense_prompts()
        if exclusive:
            order = np.argsort(prompts, kind="stable")
            table = np.stack([counts.calls, counts.ones, counts.gold])[:, order]
            row_of_cell = np.empty_like(order)
            row_of_cell[order] = np.arange(order.size)
        else:
            label = np.where(counts.has_gold(), counts.gold, -1.0)  # NaN is not equal to itself
            table, row_of_cell = np.unique(np.stack([counts.calls, counts.ones, label]), axis=1, return_inverse=True)
        tiny = 1e-300  # a label that cannot be wrong, in finite numbers
        says_right = np.log(np.maximum([gold_noise.false_right, 1.0 - gold_noise.false_wrong], tiny))
        says_wrong = np.log(np.maximum([1.0 - gold_noise.false_right, gold_noise.false_wrong], tiny))
        gold = table[2][:, None]
        of_calls = np.zeros(table.shape[1]) if exclusive else np.searchsorted(BINS, table[0])
        distinct, bins = np.unique(of_calls, return_inverse=True)
        bins = bins.reshape(-1).astype(np.int64)
        return cls(
            calls=table[0],
            ones=table[1],
            log_gold=np.where(gold == 1.0, says_right, np.where(gold == 0.0, says_wrong, 0.0)),
            groups=prompts[order] if exclusive else None,
            bins=bins,
            is_in=(bins[:, None] == np.arange(max(1, distinct.size))).astype(np.float64),
            row_of_cell=row_of_cell.reshape(-1).astype(np.int64),
            prompt_of_cell=prompts,
            num_prompts=num,
            persistent=persistent,
            anchored=anchored,
        )

    def weights(self, of_prompts: Array, of_cells: Array | None = None) -> Array:
        """[row] weight of each row, where prompts count ``of_prompts`` times, and cells ``of_cells`` (default 1)."""
        if self.groups is not None:
            return np.asarray(of_prompts[self.groups])
        of_each = of_prompts[self.prompt_of_cell] * (1.0 if of_cells is None else of_cells)
        rows = np.bincount(self.row_of_cell, weights=of_each, minlength=self.calls.size)
        return rows.astype(np.float64, copy=False)

    @property
    def num_shares(self) -> int:
        """Bins of calls that occur."""
        return int(self.is_in.shape[1])

    def with_one_share(self, rates: Array) -> Array:
        """[resample 5] of [resample 4 + shares] rates, with the mean share of all cells (of prompts, if exclusive)."""
        of_cells = np.bincount(self.bins[self.row_of_cell], minlength=self.num_shares) / self.row_of_cell.size
        return np.concatenate([rates[:, :SHARE], (rates[:, SHARE:] @ of_cells)[:, None]], axis=1)

    def prior_odds(self, share: Array) -> Array:
        """[resample row] log prior of each row being right over that of none (of its prompt) being so.

        Args:
            share: [resample row] probability that a cell, or that any of the prompt's cells, is right.
        """
        size = np.ones(1) if self.groups is None else np.bincount(self.groups)[self.groups]
        return np.asarray(np.log(share) - np.log1p(-share) - np.log(size))


def fit(mixture: Mixture, weights: Array, start: Array, settings: FitSettings) -> Array:
    """Maximum of the penalised likelihood for each resample.

    Solutions keep rho_plus + rho_minus < 1 unless the mixture is anchored: "verdict 1" is by definition what the reward
    says 1 to more often.

    Args:
        mixture: rows.
        weights: [resample row], see :meth:`Mixture.weights`.
        start: [resample 4 + shares] rates to start from, in the order of the constants of this module.
        settings: priors, and when to stop.

    Returns:
        [resample 4 + shares].
    """
    found = np.clip(start, LEAST, 1.0 - LEAST)
    live = np.arange(len(found))
    for _ in range(settings.max_sweeps):
        first, w = found[live], weights[live]
        second, value = _step(mixture, w, first, settings)
        third, _ = _step(mixture, w, second, settings)
        found[live] = _extrapolated(mixture, w, (first, second, third), value, settings)
        live = live[np.abs(third - second).max(axis=1) > settings.tolerance]
        if not live.size:
            break
    return found


def penalised_log_likelihood(mixture: Mixture, weights: Array, rates: Array, settings: FitSettings) -> Array:
    """[resample] what :func:`fit` maximises, in nats, up to a constant that does not depend on the rates."""
    return _step(mixture, weights, np.clip(rates, LEAST, 1.0 - LEAST), settings)[1]


def best_fit(
    mixture: Mixture,
    fit_settings: FitSettings = DEFAULT_FIT,
    of_cells: Array | None = None,
) -> Array:
    """[4 + shares] rates of the highest penalised likelihood over several starts."""
    weights = mixture.weights(np.ones(mixture.num_prompts), of_cells)
    flips = (0.1, 0.9) if mixture.persistent else (0.0,)
    shares = [0.5] * mixture.num_shares
    starts = np.array([[plus, minus, flip, flip, *shares] for plus, minus in STARTS for flip in flips])
    every = np.broadcast_to(weights, (len(starts), weights.size))
    ends = fit(mixture, every, starts, fit_settings)
    values = penalised_log_likelihood(mixture, every, ends, fit_settings)
    return np.asarray(ends[int(np.argmax(values))], dtype=np.float64)


def _step(mixture: Mixture, weights: Array, rates: Array, settings: FitSettings) -> tuple[Array, Array]:
    """One damped EM step from ``rates``, and the penalised log-likelihood *at* them."""
    rho_plus, rho_minus, pi_plus, pi_minus = (rates[:, [k]] for k in range(SHARE))
    share = rates[:, SHARE:][:, mixture.bins]
    n, s = mixture.calls, mixture.ones
    l1 = s * np.log1p(-rho_minus) + (n - s) * np.log(rho_minus)
    l0 = s * np.log(rho_plus) + (n - s) * np.log1p(-rho_plus)
    if mixture.persistent:
        right_1, right_0 = np.log1p(-pi_minus) + l1, np.log(pi_minus) + l0
        wrong_1, wrong_0 = np.log(pi_plus) + l1, np.log1p(-pi_plus) + l0
        t1, t0 = np.logaddexp(right_1, right_0), np.logaddexp(wrong_1, wrong_0)
    else:
        t1, t0 = l1, l0
    t1, t0 = t1 + mixture.log_gold[:, 1], t0 + mixture.log_gold[:, 0]
    q, log_likelihood, right_prompts, num_prompts = _responsibilities(mixture, weights, t1, t0, share)
    right, wrong = weights * q, weights * (1.0 - q)
    if mixture.persistent:
        one_if_right = np.exp(right_1 + mixture.log_gold[:, 1] - t1)
        one_if_wrong = np.exp(wrong_1 + mixture.log_gold[:, 0] - t0)
        verdict_1 = right * one_if_right + wrong * one_if_wrong
        flipped_right, flipped_wrong = right * (1.0 - one_if_right), wrong * one_if_wrong
    else:
        verdict_1 = right
        flipped_right = flipped_wrong = np.zeros_like(right)
    verdict_0 = weights - verdict_1
    errors = np.stack([verdict_0 @ s, verdict_1 @ (n - s), flipped_wrong.sum(1), flipped_right.sum(1)], axis=1)
    chances = np.stack([verdict_0 @ n, verdict_1 @ n, wrong.sum(1), right.sum(1)], axis=1)
    more_errors, more = settings.prior_errors - 1.0, settings.prior_errors + settings.prior_correct - 2.0
    shares = right_prompts / np.maximum(num_prompts, LEAST)
    updated = np.concatenate([(errors + more_errors) / np.maximum(chances + more, LEAST), shares], axis=1)
    updated = np.clip(updated, LEAST, 1.0 - LEAST)
    if not mixture.anchored:
        updated = _in_order(updated)
    fitted = slice(0, PI_MINUS + 1) if mixture.persistent else slice(0, RHO_MINUS + 1)
    if not mixture.persistent:
        updated[:, [PI_PLUS, PI_MINUS]] = rates[:, [PI_PLUS, PI_MINUS]]
    penalty = more_errors * np.log(rates[:, fitted]) + (settings.prior_correct - 1.0) * np.log1p(-rates[:, fitted])
    return settings.damping * rates + (1.0 - settings.damping) * updated, log_likelihood + penalty.sum(axis=1)


def _responsibilities(
    mixture: Mixture, weights: Array, t1: Array, t0: Array, share: Array
) -> tuple[Array, Array, Array, Array]:
    """[resample row] q; [resample] log-likelihood; [resample share] weight of what is right, and of what may be."""
    odds = t1 - t0 + mixture.prior_odds(share)
    base = (weights * t0).sum(axis=1)
    if mixture.groups is None:
        top = np.logaddexp(0.0, odds)
        q = np.exp(odds - top)
        log_likelihood = base + (weights * (top + np.log1p(-share))).sum(axis=1)
        return q, log_likelihood, (weights * q) @ mixture.is_in, weights @ mixture.is_in
    starts = np.flatnonzero(np.diff(mixture.groups, prepend=-1))
    top = np.maximum(np.maximum.reduceat(odds, starts, axis=1), 0.0)
    relative = np.exp(odds - top[:, mixture.groups])
    total = np.exp(-top) + np.add.reduceat(relative, starts, axis=1)
    q = relative / total[:, mixture.groups]
    of_prompts = weights[:, starts]
    log_likelihood = base + (of_prompts * (np.log(total) + top + np.log1p(-share[:, starts]))).sum(axis=1)
    return q, log_likelihood, (weights * q).sum(axis=1)[:, None], of_prompts.sum(axis=1)[:, None]


def _extrapolated(
    mixture: Mixture, weights: Array, path: tuple[Array, Array, Array], value: Array, settings: FitSettings
) -> Array:
    """Where two plain steps lead if continued, or the second of them where that is no better than the first point."""
    first, second, third = (np.log(rates) - np.log1p(-rates) for rates in path)
    speed, bend = second - first, third - 2.0 * second + first
    length = np.sqrt((speed**2).sum(1) / np.maximum((bend**2).sum(1), 1e-300))
    length = np.clip(length, 1.0, 1e3)[:, None]
    far = np.clip(first + 2.0 * length * speed + length**2 * bend, -30.0, 30.0)
    leap = np.clip(1.0 / (1.0 + np.exp(-far)), LEAST, 1.0 - LEAST)
    if not mixture.persistent:
        leap[:, [PI_PLUS, PI_MINUS]] = path[2][:, [PI_PLUS, PI_MINUS]]
    after, reached = _step(mixture, weights, leap, settings)
    in_order = mixture.anchored | (leap[:, RHO_PLUS] + leap[:, RHO_MINUS] < 1.0)
    better: npt.NDArray[np.bool_] = (reached >= value) & in_order
    return np.where(better[:, None], after, path[2])


def _in_order(rates: Array) -> Array:
    """Scale rho_plus and rho_minus down to a sum just below 1 where a step has crossed it: there the names change."""
    both = rates[:, [RHO_PLUS, RHO_MINUS]]
    total = both.sum(axis=1, keepdims=True)
    rates[:, [RHO_PLUS, RHO_MINUS]] = np.where(total >= 1.0, both / total * (1.0 - 1e-6), both)
    return rates
