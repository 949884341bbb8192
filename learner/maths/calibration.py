"""How well the critic predicts the returns that followed. All of the critic *before* the update, on action tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from learner.maths.collective import Collective
from learner.maths.losses.tail import interquartile_range
from learner.maths.losses.value import explained_variance
from learner.maths.quantiles.quantiles import quantile_at, spread, tail_count
from learner.metrics import Last, Mean, Metrics

COVERAGE_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
TAIL_SHARE = 0.1


def critic_metrics(
    quantile_values: Tensor,
    raw_crossing_frac: Tensor,
    quantiles: Tensor,
    values: Tensor,
    returns: Tensor,
    mask: Tensor,
    world: Collective,
) -> Metrics:
    """Fit of the mean, calibration of the quantiles, order, spread and agreement of the heads.

    Args:
        quantile_values: [batch seq head M] of the old critic.
        raw_crossing_frac: [batch seq], see :class:`learner.models.spec.CriticOutput`.
        quantiles: [batch seq M], the old critic's ensemble.
        values: [batch seq], the scalar read-out.
        returns: [batch seq], sampled discounted returns.
        mask: [batch seq] bool.
    """
    q, v, g = quantiles[mask], values[mask], returns[mask]
    every_v, every_g = world.gather(v), world.gather(g)
    metrics: Metrics = {
        "critic/explained_variance": Last(explained_variance(every_v, every_g)),
        "critic/bias": _mean(v - g),
        "critic/value_mean": _mean(v),
        "critic/return_mean": _mean(g),
    }
    heads = quantile_values.detach()[mask]
    if heads.shape[-2] > 1:
        metrics["critic/head_disagreement"] = _mean(spread(heads, dim=-2).sqrt().mean(dim=-1))
    if q.shape[-1] > 1:
        metrics["critic/crossing_frac"] = _mean(raw_crossing_frac.detach()[mask])
        metrics["critic/iqr"] = _mean(interquartile_range(q))
        for level in COVERAGE_LEVELS:
            metrics[f"critic/coverage_q{round(level * 100):02d}"] = _mean(below(g, quantile_at(q, level)))
    if q.shape[-1] * TAIL_SHARE >= 2:
        n = tail_count(q.shape[-1], TAIL_SHARE)
        metrics["critic/lower_tail_std"] = _mean(spread(q[:, :n]).sqrt())
        metrics["critic/upper_tail_std"] = _mean(spread(q[:, -n:]).sqrt())
    return metrics


def below(returns: Tensor, level_values: Tensor) -> Tensor:
    """1 where the return is below the predicted quantile, 1/2 where it is equal (returns may be discrete)."""
    return (torch.sign(level_values - returns) + 1.0) / 2.0


def _mean(values: Tensor) -> Mean:
    return Mean(float(values.double().sum()), float(values.numel()))
