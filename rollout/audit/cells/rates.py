"""Error rates of a binary reward from the cells it scored, with intervals, or the reason why there are none.

Repeats of a cell measure transient errors without any gold label, since two unknown rates and a share take three
moments: cells with three calls or more. They never see persistent errors: those take gold. Gold of cells that were
scored once knows the total error of a score only, not the two kinds apart.

Intervals come from a bootstrap over prompts. A number with a wide interval is worse than none, as corrections
believe numbers: it is given as None, with a reason.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from rollout.audit.cells.counts import Array, CellCounts
from rollout.audit.cells.measured import DEFAULT_MEASURE, MeasuredRates, MeasureSettings
from rollout.audit.cells.mixture import (
    DEFAULT_FIT,
    LEAST,
    PI_MINUS,
    PI_PLUS,
    RHO_MINUS,
    RHO_PLUS,
    SHARE,
    FitSettings,
    Mixture,
    best_fit,
    fit,
    penalised_log_likelihood,
)
from rollout.audit.cells.posterior import (
    PERFECT_GOLD,
    GoldNoise,
    TransientRates,
    independent_posterior,
)
from rollout.audit.intervals import Estimate

REPEATS = 3
"""Calls of a cell from which on it tells two rates and a share apart."""
LEAST_PROMPTS = 20
"""Fewer cannot be resampled: intervals would be too narrow."""
LEAST_J = 0.02
"""Scores that depend on the verdict less than this are coins."""
EVIDENT = 5.0
"""Nats by which a richer explanation has to be better to be believed: two kinds of cell, or that 1 means wrong."""
NOTHING = 1e-6
"""Rates below this are 0."""
CHUNK = 2_000_000
"""Numbers in a block of resamples times rows."""


def measure_rates(
    counts: CellCounts,
    *,
    exclusive: bool = False,
    gold_noise: GoldNoise = PERFECT_GOLD,
    settings: MeasureSettings = DEFAULT_MEASURE,
    fit_settings: FitSettings = DEFAULT_FIT,
    seed: int = 0,
) -> MeasuredRates:
    """Everything that a window of cells tells about how the reward errs; independent of the order of cells.

    Whom gold was asked for may depend on the scores, but, for the total rates of cells with repeats, only at random.
    Without gold, exclusive cells take all errors for transient; persistent ones would bias them.

    Args:
        counts: of one reward function and one source.
        exclusive: at most one cell of a prompt is right.
        gold_noise: errors of gold labels, which are given, not estimated.
        settings, fit_settings: what counts as identified, and how the maximum is found.
        seed: of the bootstrap.
    """
    counts = _canonical(counts)
    num_repeated, num_gold = int(np.sum(counts.calls >= REPEATS)), int(np.sum(counts.has_gold()))
    found: dict[str, Estimate] = {}
    reasons: list[str] = []
    rng = np.random.default_rng(seed)
    num_prompts = np.unique(counts.prompts).size
    if num_prompts < LEAST_PROMPTS:
        reasons.append(f"{num_prompts} prompts are too few for intervals: it takes {LEAST_PROMPTS}")
    elif num_repeated < settings.least_repeated:
        reasons += _lack_of_repeats(num_repeated, settings.least_repeated, num_gold > 0)
    elif _are_alike(counts, fit_settings):
        reasons.append("transient rates: scores of different cells differ no more than those of one coin")
    else:
        mixture = Mixture.of(counts, exclusive=exclusive, persistent=num_gold > 0, gold_noise=gold_noise)
        drawn = _bootstrap(mixture, None, settings, fit_settings, rng)
        inverted = exclusive and not num_gold and _is_inverted(counts, mixture, drawn[0], fit_settings)
        _judge_apart(counts, mixture.with_one_share(drawn), inverted, settings, found, reasons)
    if num_gold and num_prompts >= LEAST_PROMPTS and "total_plus" not in found:
        _judge_total(counts, gold_noise, settings, fit_settings, rng, found, reasons)
    return MeasuredRates(
        **found,
        anchored="pi_plus" in found or "total_plus" in found,
        num_cells=len(counts),
        num_repeated=num_repeated,
        num_gold=num_gold,
        reasons=tuple(reasons),
    )


def total_rates(rates: Array) -> tuple[Array, Array]:
    """[resample] P(score 1 | wrong) and P(score 0 | right) of [resample 5] transient and persistent rates together."""
    plus, minus = rates[:, RHO_PLUS], rates[:, RHO_MINUS]
    return (
        rates[:, PI_PLUS] * (1.0 - minus) + (1.0 - rates[:, PI_PLUS]) * plus,
        rates[:, PI_MINUS] * (1.0 - plus) + (1.0 - rates[:, PI_MINUS]) * minus,
    )


def _lack_of_repeats(num_repeated: int, least: int, has_gold: bool) -> list[str]:
    cells = f"{num_repeated} cells were scored {REPEATS} times or more, it takes at least {least}"
    only_total = "persistent rates: without repeats gold knows only the total error of a score"
    return [f"transient rates: {cells}", *([only_total] if has_gold else [])]


def _canonical(counts: CellCounts) -> CellCounts:
    """Cells with a call, in an order that does not depend on the given one except between equal cells."""
    order = np.lexsort((counts.gold, counts.ones, counts.calls, counts.prompts))
    order = order[counts.calls[order] > 0.0]
    return CellCounts.of(counts.calls[order], counts.ones[order], counts.prompts[order], counts.gold[order])


def _bootstrap(
    mixture: Mixture,
    of_cells: Array | None,
    settings: MeasureSettings,
    fit_settings: FitSettings,
    rng: np.random.Generator,
) -> Array:
    """[1 + resample 5] the best fit, and those of resampled prompts."""
    best = best_fit(mixture, fit_settings, of_cells)
    num = mixture.num_prompts
    chunk = max(1, CHUNK // mixture.calls.size)
    ends = [best[None]]
    for first in range(0, settings.num_resamples, chunk):
        size = min(chunk, settings.num_resamples - first)
        drawn = (np.bincount(rng.integers(0, num, num), minlength=num).astype(np.float64) for _ in range(size))
        weights = np.stack([mixture.weights(of_prompts, of_cells) for of_prompts in drawn])
        # Far below the spread of the resamples: more digits would not be read.
        rough = replace(fit_settings, tolerance=max(1e-6, fit_settings.tolerance))
        ends.append(fit(mixture, weights, np.broadcast_to(best, (size, best.size)), rough))
    return np.concatenate(ends)


def _judge_apart(
    counts: CellCounts,
    drawn: Array,
    inverted: bool,
    settings: MeasureSettings,
    found: dict[str, Estimate],
    reasons: list[str],
) -> None:
    """Keep the rates whose intervals are narrow enough, and say why the others are not kept."""
    gold = counts.gold
    rho_plus, rho_minus = drawn[0, RHO_PLUS], drawn[0, RHO_MINUS]
    calls_0, calls_1 = _informative_calls(counts, drawn[0])
    plus, minus = (
        _interval(drawn[:, column], calls, settings.level)
        for column, calls in ((RHO_PLUS, calls_0), (RHO_MINUS, calls_1))
    )
    widest = max(plus.width, minus.width)
    if inverted:
        reasons.append(
            "transient rates: at most one answer of a prompt is right, yet most are scored 1; "
            "the reward may be wrong more often than right, which only gold labels can settle"
        )
        return
    if 1.0 - rho_plus - rho_minus < LEAST_J:
        reasons.append("transient rates: scores of a cell hardly depend on its verdict (J is about 0)")
        return
    if widest > settings.max_width:
        reasons.append(_too_wide("transient", widest, settings.max_width, "cells"))
        return
    found.update(
        rho_plus=plus,
        rho_minus=minus,
        share=_interval(drawn[:, SHARE], len(counts), settings.level, can_be_unseen=False),
    )
    if not counts.has_gold().any():
        return
    num_wrong, num_right = float(np.sum(gold == 0.0)), float(np.sum(gold == 1.0))
    total_plus, total_minus = total_rates(drawn)
    for what, names, columns in (
        ("persistent", ("pi_plus", "pi_minus"), (drawn[:, PI_PLUS], drawn[:, PI_MINUS])),
        ("total", ("total_plus", "total_minus"), (total_plus, total_minus)),
    ):
        pair = [
            _interval(column, labels, settings.level)
            for column, labels in zip(columns, (num_wrong, num_right), strict=True)
        ]
        _keep_pair(what, names, pair, settings.max_width_with_gold, found, reasons)


def _judge_total(
    counts: CellCounts,
    gold_noise: GoldNoise,
    settings: MeasureSettings,
    fit_settings: FitSettings,
    rng: np.random.Generator,
    found: dict[str, Estimate],
    reasons: list[str],
) -> None:
    """Total rates from gold: each cell counts as one call, a one with the share of ones among its calls."""
    twice = CellCounts.of(
        np.ones(2 * len(counts)),
        np.repeat([1.0, 0.0], len(counts)),
        np.tile(counts.prompts, 2),
        np.tile(counts.gold, 2),
    )
    mean = counts.ones / counts.calls
    mixture = Mixture.of(twice, exclusive=False, persistent=False, anchored=True, gold_noise=gold_noise)
    drawn = _bootstrap(mixture, np.concatenate([mean, 1.0 - mean]), settings, fit_settings, rng)
    labels = [float(np.sum(counts.gold == value)) for value in (0.0, 1.0)]
    pair = [_interval(drawn[:, k], n, settings.level) for k, n in zip((RHO_PLUS, RHO_MINUS), labels, strict=True)]
    reasons[:] = [reason for reason in reasons if not reason.startswith("total")]
    _keep_pair("total", ("total_plus", "total_minus"), pair, settings.max_width_with_gold, found, reasons)


def _keep_pair(
    what: str,
    names: tuple[str, str],
    pair: list[Estimate],
    max_width: float,
    found: dict[str, Estimate],
    reasons: list[str],
) -> None:
    widest = max(interval.width for interval in pair)
    if widest <= max_width:
        found.update(zip(names, pair, strict=True))
    else:
        reasons.append(_too_wide(what, widest, max_width, "gold labels"))


def _too_wide(what: str, widest: float, max_width: float, of_what: str) -> str:
    times = (widest / max_width) ** 2
    need = (
        f"it takes about {times:.1f} times as many {of_what}" if times < 20.0 else f"these {of_what} do not tell them"
    )
    return f"{what} rates: an interval is {widest:.3f} wide, at most {max_width:.3f} is a number; {need} {of_what}"


def _interval(drawn: Array, chances: float, level: float, can_be_unseen: bool = True) -> Estimate:
    """As far to both sides as percentiles of the resamples go to one, and what ``chances`` independent calls may hide.

    A rate that is pulled to one side has resamples that are pulled further: percentiles alone lie on the wrong side.
    Resamples of no errors have none, yet a small rate would have shown none either.
    """
    tail = (1.0 - level) / 2.0
    reach = np.max(np.abs(np.quantile(drawn[1:], [tail, 1.0 - tail]) - drawn[0]))
    low, high = max(drawn[0] - reach, 0.0), min(drawn[0] + reach, 1.0)
    unseen = 1.0 - tail ** (1.0 / max(chances, 1e-9)) if can_be_unseen else 0.0
    value = float(drawn[0])
    lowest = float(min(low, value, 1.0 - unseen))
    # A fit never reaches 0, where log-odds end.
    return Estimate(value, 0.0 if lowest < NOTHING else lowest, float(max(high, value, unseen)), round(chances))


def _informative_calls(counts: CellCounts, rates: Array) -> tuple[float, float]:
    """Expected calls of repeated cells whose verdict is 0, and 1."""
    repeated = counts.calls >= REPEATS
    of_verdict = rates[SHARE] * (1.0 - rates[PI_MINUS]) + (1.0 - rates[SHARE]) * rates[PI_PLUS]
    some = CellCounts.of(counts.calls[repeated], counts.ones[repeated])
    transient = TransientRates(rho_plus=float(rates[RHO_PLUS]), rho_minus=float(rates[RHO_MINUS]))
    verdict_1 = independent_posterior(some, float(of_verdict), transient)
    return float(np.sum((1.0 - verdict_1) * some.calls)), float(np.sum(verdict_1 * some.calls))


def _are_alike(counts: CellCounts, fit_settings: FitSettings) -> bool:
    """Whether one rate of ones for all cells explains them about as well as two do: then two are only fitted noise."""
    mixture = Mixture.of(replace(counts, gold=np.full(len(counts), np.nan)), exclusive=False, persistent=False)
    weights = mixture.weights(np.ones(mixture.num_prompts))[None]
    rates = best_fit(mixture, fit_settings)[None]
    two = float(penalised_log_likelihood(mixture, weights, rates, fit_settings)[0])
    calls, ones = float(np.sum(counts.calls)), float(np.sum(counts.ones))
    rate = min(max(ones / calls, LEAST), 1.0 - LEAST)
    # Each further share explains something by chance, too.
    return two < ones * math.log(rate) + (calls - ones) * math.log1p(-rate) + EVIDENT + mixture.num_shares - 1


def _is_inverted(counts: CellCounts, mixture: Mixture, best: Array, fit_settings: FitSettings) -> bool:
    """Whether exclusive cells are explained better if a score of 1 means wrong: that many answers cannot be right."""
    flipped = CellCounts.of(counts.calls, counts.calls - counts.ones, counts.prompts)
    other = Mixture.of(flipped, exclusive=True, persistent=False)
    values = [
        float(penalised_log_likelihood(m, m.weights(np.ones(m.num_prompts))[None], rates[None], fit_settings)[0])
        for m, rates in ((mixture, best), (other, best_fit(other, fit_settings)))
    ]
    return values[1] > values[0] + EVIDENT
