"""How wrong the scores are, and how good the value model is: one maximum of the marginal likelihood of all cells."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

NAMES = ("false_positive_rate", "false_negative_rate", "slope", "intercept")
START = (-1.0, -1.0, 0.5, 0.0)
PRIOR_RATE = (1.5, 2.5)
"""Beta prior of both rates: mean 3/8, weight of four scores; keeps them off 0 and 1."""
PRIOR_SLOPE_STD, PRIOR_INTERCEPT_STD = 1.0, 2.0


@dataclass(frozen=True, slots=True)
class CellTable:
    """What is known of some cells; all [cells] float64.

    Attributes:
        num_scores, sum_scores: counts of scores in [0, 1].
        gold: true reward, or NaN.
        logits: log-odds that the value model gives, of a network that has not seen the prompt.
    """

    num_scores: Tensor
    sum_scores: Tensor
    gold: Tensor
    logits: Tensor


@dataclass(frozen=True, slots=True)
class Channel:
    """How scores come of the truth, and the prior of the truth.

    Attributes:
        false_positive_rate, false_negative_rate: of one score.
        slope, intercept: the log-odds that a cell is right before its scores: ``slope * logit + intercept``. A value
            model that says nothing gets slope 0.
        youden_std: standard error of J = 1 - both rates, from the data alone; infinite where they do not tell it.
    """

    false_positive_rate: float
    false_negative_rate: float
    slope: float
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

    def prior_logits(self, logits: Any) -> Any:
        """Log-odds before any score, elementwise."""
        return self.slope * logits + self.intercept


def fit_channel(cells: CellTable, start: Channel | None = None) -> Channel:
    """Maximum of the posterior of rates, slope and intercept; truths of cells without gold are summed out.

    Args:
        cells: at least one.
        start: an earlier solution to begin from.
    """
    first = (
        START
        if start is None
        else (_logit(start.false_positive_rate), _logit(start.false_negative_rate), start.slope, start.intercept)
    )

    def objective(values: Any) -> tuple[float, Any]:
        point = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        loss = _negative_log_likelihood(point, cells) - _log_prior(point)
        (gradient,) = torch.autograd.grad(loss, point)
        return loss.item(), gradient.numpy()

    with torch.enable_grad():
        found = minimize(objective, np.array(first), jac=True, method="L-BFGS-B", bounds=_BOUNDS)
        point = torch.tensor(found.x, dtype=torch.float64)
        curvature = torch.autograd.functional.hessian(lambda p: _negative_log_likelihood(p, cells), point)
    fp, fn = point[:2].sigmoid().tolist()
    return Channel(fp, fn, float(point[2]), float(point[3]), _youden_std(curvature, fp, fn))


_BOUNDS = [(-6.0, 6.0), (-6.0, 6.0), (0.0, 4.0), (-6.0, 6.0)]


def _negative_log_likelihood(point: Tensor, cells: CellTable) -> Tensor:
    fp, fn, one_minus_fp, one_minus_fn = (
        torch.nn.functional.logsigmoid(value) for value in (point[0], point[1], -point[0], -point[1])
    )
    failures = cells.num_scores - cells.sum_scores
    prior = point[2] * cells.logits + point[3]
    right = torch.nn.functional.logsigmoid(prior) + cells.sum_scores * one_minus_fn + failures * fn
    wrong = torch.nn.functional.logsigmoid(-prior) + cells.sum_scores * fp + failures * one_minus_fp
    gold = cells.gold
    known = gold.nan_to_num() * right + (1.0 - gold.nan_to_num()) * wrong
    return -torch.where(gold.isnan(), torch.logaddexp(right, wrong), known).sum()


def _log_prior(point: Tensor) -> Tensor:
    rates = torch.nn.functional.logsigmoid(point[:2]) * PRIOR_RATE[0]
    rates = rates + torch.nn.functional.logsigmoid(-point[:2]) * PRIOR_RATE[1]
    slope = (point[2] / PRIOR_SLOPE_STD) ** 2 + (point[3] / PRIOR_INTERCEPT_STD) ** 2
    return rates.sum() - 0.5 * slope


def _youden_std(curvature: Tensor, fp: float, fn: float) -> float:
    """By the delta method, from the observed information; a direction without information makes it infinite."""
    direction = torch.tensor([fp * (1 - fp), fn * (1 - fn), 0.0, 0.0], dtype=torch.float64)
    values, vectors = torch.linalg.eigh(curvature)
    shares = (vectors.T @ direction).square()
    if bool((values <= 1e-9).logical_and(shares > 1e-12).any()):
        return math.inf
    return math.sqrt(float((shares / values.clamp(min=1e-12)).sum()))


def _logit(probability: float) -> float:
    return math.log(probability / (1.0 - probability))
