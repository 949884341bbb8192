"""How wrong the scores are, and how good the value model is: one maximum of the marginal likelihood of all cells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit

START_RATE, START_SLOPE = -1.0, 0.5
PRIOR_RATE = (1.5, 2.5)
"""Beta prior of both rates: mean 3/8, weight of four scores; keeps them off 0 and 1."""
PRIOR_SLOPE_STD, PRIOR_INTERCEPT_STD = 1.0, 2.0
LOG_ODDS_BOUNDS, SLOPE_BOUNDS = (-6.0, 6.0), (0.0, 4.0)
CLEAR = 2.0
"""Standard errors above 0 from which the slope of a further view counts."""
MIN_INFORMATION = 1e-9
Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class CellTable:
    """What is known of some cells; all [cells] float64 but the logits.

    Attributes:
        num_scores, sum_scores: counts of scores in [0, 1].
        gold: true reward, or NaN.
        logits: [cells views] log-odds that the value model gives, of networks that have not seen the prompt.
    """

    num_scores: Array
    sum_scores: Array
    gold: Array
    logits: Array


@dataclass(frozen=True, slots=True)
class Channel:
    """How scores come of the truth, and the prior of the truth.

    Attributes:
        false_positive_rate, false_negative_rate: of one score.
        slopes, intercept: the log-odds that a cell is right before its scores: ``logits @ slopes + intercept``. A view
            of the value model gets slope 0 if it adds nothing, one after the first also if that is not clear.
        youden_std: standard error of J = 1 - both rates, from the data alone; infinite where they do not tell it.
    """

    false_positive_rate: float
    false_negative_rate: float
    slopes: tuple[float, ...]
    intercept: float
    youden_std: float

    @property
    def youden_j(self) -> float:
        """What a score is worth: 1 all, 0 nothing, negative if it says the opposite."""
        return 1.0 - self.false_positive_rate - self.false_negative_rate

    def evidence(self, num_scores: Any, sum_scores: Any) -> Any:
        """log P(scores | right) - log P(scores | wrong), elementwise, of arrays or tensors."""
        fp, fn = self.false_positive_rate, self.false_negative_rate
        return sum_scores * math.log((1.0 - fn) / fp) + (num_scores - sum_scores) * math.log(fn / (1.0 - fp))

    def metrics(self) -> dict[str, float]:
        """Rates and slopes, as they are reported; the last slope is that of content where it has one."""
        named = {
            "false_positive_rate": self.false_positive_rate,
            "false_negative_rate": self.false_negative_rate,
            "j_std": min(self.youden_std, 1.0),
            **dict(zip(("model_slope", "content_slope"), self.slopes, strict=False)),
        }
        return {f"correction/evidence_{name}": value for name, value in named.items()}

    def prior_logits(self, logits: Any) -> Any:
        """[n] log-odds before any score, of logits [n views], an array."""
        return logits @ np.array(self.slopes) + self.intercept


def fit_channel(cells: CellTable, start: Channel | None = None) -> Channel:
    """Maximum of the posterior of rates, slopes and intercept; truths of cells without gold are summed out.

    Args:
        cells: at least one.
        start: an earlier solution to begin from.
    """
    num_views = cells.logits.shape[1]
    first: tuple[float, ...] = (START_RATE, START_RATE, *[START_SLOPE / num_views] * num_views, 0.0)
    if start is not None:
        rates = _logit(start.false_positive_rate), _logit(start.false_negative_rate)
        first = (*rates, *start.slopes, start.intercept)

    def objective(point: Array) -> tuple[float, Array]:
        values, gradients = cell_log_likelihoods(point, cells)
        prior, prior_gradient = _log_prior(point)
        return -float(values.sum()) - prior, -gradients.sum(axis=1) - prior_gradient

    bounds = [LOG_ODDS_BOUNDS] * 2 + [SLOPE_BOUNDS] * num_views + [LOG_ODDS_BOUNDS]
    point = minimize(objective, np.array(first), jac=True, method="L-BFGS-B", bounds=bounds).x
    # Since no slope is below 0, the error of one that should be 0 would always be noise in the rewards.
    unsure = [2 + view for view in range(1, num_views) if point[2 + view] < CLEAR * _std(point, cells, 2 + view)]
    if unsure:
        bounds = [(0.0, 0.0) if index in unsure else bound for index, bound in enumerate(bounds)]
        point = minimize(objective, point, jac=True, method="L-BFGS-B", bounds=bounds).x
    fp, fn, *slopes, intercept = map(float, point)
    _, gradients = cell_log_likelihoods(point, cells)
    return Channel(_sigmoid(fp), _sigmoid(fn), tuple(slopes), intercept, _youden_std(gradients, point))


def _std(point: Array, cells: CellTable, index: int) -> float:
    """Standard error of one parameter, from outer products of the gradients and the priors' curvature."""
    _, gradients = cell_log_likelihoods(point, cells)
    spread = np.concatenate([np.ones(2), _prior_spread(point)])
    return math.sqrt(float(np.linalg.inv(gradients @ gradients.T + np.diag(spread**-2.0))[index, index]))


def cell_log_likelihoods(point: Array, cells: CellTable) -> tuple[Array, Array]:
    """Log of the probability of each cell's scores and gold label.

    Args:
        point: false positive and false negative rate as log-odds, the slopes, and the intercept.

    Returns:
        [cells], and its gradient [parameters cells].
    """
    fp, fn, intercept = float(point[0]), float(point[1]), float(point[-1])
    ones, failures = cells.sum_scores, cells.num_scores - cells.sum_scores
    prior = cells.logits @ point[2:-1] + intercept
    right = log_expit(prior) + ones * log_expit(-fn) + failures * log_expit(fn)
    wrong = log_expit(-prior) + ones * log_expit(fp) + failures * log_expit(-fp)
    known = ~np.isnan(cells.gold)
    share = np.where(known, cells.gold, expit(right - wrong))
    values = np.where(known, share * right + (1.0 - share) * wrong, np.logaddexp(right, wrong))
    surprise = share - expit(prior)
    gradients = np.stack([
        (1.0 - share) * (ones * expit(-fp) - failures * expit(fp)),
        share * (failures * expit(-fn) - ones * expit(fn)),
        *(surprise * cells.logits.T),
        surprise,
    ])  # fmt: skip
    return values, gradients


def _prior_spread(point: Array) -> Array:
    """Standard deviations of the priors of slopes and intercept."""
    return np.array([*[PRIOR_SLOPE_STD] * (len(point) - 3), PRIOR_INTERCEPT_STD])


def _log_prior(point: Array) -> tuple[float, Array]:
    """Beta of the rates, normal of slopes and intercept; and the gradient."""
    rates, (right, wrong) = point[:2], PRIOR_RATE
    spread = _prior_spread(point)
    scaled = point[2:] / spread
    value = float((right * log_expit(rates) + wrong * log_expit(-rates)).sum() - 0.5 * (scaled**2).sum())
    slopes = -scaled / spread
    return value, np.concatenate([right * expit(-rates) - wrong * expit(rates), slopes])


def _youden_std(gradients: Array, point: Array) -> float:
    """By the delta method, from outer products of the gradients [parameters cells], which never are indefinite.

    A direction of J about which no cell says anything makes it infinite.
    """
    rates = expit(point[:2])
    direction = np.concatenate([rates * (1.0 - rates), np.zeros(len(point) - 2)])
    values, vectors = np.linalg.eigh(gradients @ gradients.T)
    shares = (vectors.T @ direction) ** 2
    if bool(((values <= MIN_INFORMATION * values.max()) & (shares > MIN_INFORMATION)).any()):
        return math.inf
    return math.sqrt(float((shares / np.maximum(values, 1e-12)).sum()))


def _sigmoid(value: float) -> float:
    return float(expit(value))


def _logit(probability: float) -> float:
    return math.log(probability / (1.0 - probability))
