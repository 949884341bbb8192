"""How well the critic predicts the returns that followed. All of the critic *before* the update, on action tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from learner.maths.collective import Collective
from learner.maths.losses.tail import interquartile_range
from learner.maths.losses.value import explained_variance
from learner.maths.outcomes import nearest, outcomes
from learner.maths.quantiles.quantiles import spread, tail_count
from learner.metrics import Last, Mean, Metrics

COVERAGE_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
TAIL_SHARE = 0.1
_PLACES = "places"


class CriticFit:
    """Fit of the mean, calibration of the quantiles, order, spread and agreement of the heads, over a batch in parts.

    Of each part only numbers by token are kept, so that the metrics are the same, bit by bit, however it is split.

    Args:
        returns: [batch seq], sampled discounted returns.
        mask: [batch seq] bool.
        uniforms: [batch seq] in [0, 1), what makes the coverage of discrete returns exact; the trajectories' own.
        num_quantiles: M.
        world: the ranks that share the batch.
    """

    def __init__(self, returns: Tensor, mask: Tensor, uniforms: Tensor, num_quantiles: int, world: Collective) -> None:
        self._returns, self._mask, self._uniforms, self._world = returns, mask, uniforms, world
        self._num = num_quantiles
        self._every_return = world.gather(returns[mask])
        self._num_rows = int(world.gather(mask.any(dim=1).long()).sum()) if num_quantiles > 1 else 0
        self._found: dict[str, list[Tensor]] = {}

    def add(self, place: tuple[slice, slice], heads: Tensor, crossing: Tensor | None, quantiles: Tensor) -> None:
        """Look at one part, rows ascending.

        Args:
            place: its rows and columns.
            heads: [rows columns head M] of the old critic.
            crossing: [rows columns], share of raw outputs out of order.
            quantiles: [rows columns M], the old critic's ensemble.
        """
        mask, found = self._mask[place], {}
        q = quantiles[mask]
        if heads.shape[-2] > 1:
            found["critic/head_disagreement"] = head_disagreement(heads.detach()[mask])
        if self._num > 1:
            if crossing is not None:
                found["critic/crossing_frac"] = crossing.detach()[mask]
            found["critic/iqr"] = interquartile_range(q)
            expected = as_outcomes(q, self._every_return, self._num_rows)
            found[_PLACES] = randomised_pit(expected, self._returns[place][mask], self._uniforms[place][mask])
        if self._num * TAIL_SHARE >= 2:
            n = tail_count(self._num, TAIL_SHARE)
            found["critic/lower_tail_std"] = spread(q[:, :n]).sqrt()
            found["critic/upper_tail_std"] = spread(q[:, -n:]).sqrt()
        for name, values in found.items():
            self._found.setdefault(name, []).append(values)

    def metrics(self, values: Tensor, disagreement: Tensor | None = None) -> Metrics:
        """All of it, after the last part; every rank asks.

        Args:
            values: [batch seq], the scalar read-out.
            disagreement: [batch seq], :func:`head_disagreement` where heads were given as their mean.
        """
        mask, g = self._mask, self._returns[self._mask]
        v = values[mask]
        metrics: Metrics = {
            "critic/explained_variance": Last(explained_variance(self._world.gather(v), self._every_return)),
            "critic/bias": _mean(v - g),
            "critic/value_mean": _mean(v),
            "critic/return_mean": _mean(g),
        }
        if disagreement is not None:
            metrics["critic/head_disagreement"] = _mean(disagreement[mask])
        found = {name: torch.cat(parts) for name, parts in self._found.items()}
        places = found.pop(_PLACES, None)
        metrics |= {name: _mean(column) for name, column in found.items()}
        if places is not None:
            metrics |= {
                f"critic/coverage_q{round(level * 100):02d}": _mean(places < level) for level in COVERAGE_LEVELS
            }
        return metrics


def head_disagreement(quantile_values: Tensor) -> Tensor:
    """Standard deviation over heads, averaged over quantiles: [... head M] -> [...]."""
    return spread(quantile_values, dim=-2).sqrt().mean(dim=-1)


def as_outcomes(quantiles: Tensor, returns: Tensor, num_rows: int) -> Tensor:
    """Quantiles as the outcomes that they stand for, where returns have few values; else as they are (our choice).

    A critic of 0/1 returns says .003 and .98. Which outcome it means by that is known where both have occurred.

    Args:
        quantiles: [n M] ascending, and so is the result.
        returns: of all tokens of all ranks.
        num_rows: trajectories that they come from.
    """
    known = outcomes(returns, num_rows)
    return quantiles if known is None or len(known) < 2 else nearest(quantiles, known.to(quantiles))


def randomised_pit(quantiles: Tensor, returns: Tensor, uniforms: Tensor) -> Tensor:
    """Where each return lies in its predicted distribution, [n] in [0, 1]; uniform if the predictions are right.

    The randomised probability integral transform ``F(g-) + u * (F(g) - F(g-))`` (Smith 1985; Czado, Gneiting and Held
    2009). Without u, outcomes that have a probability of their own, such as rewards in {0, 1}, would never be uniform.
    F is linear between neighbouring quantiles, whose levels are midpoints; beyond the outer ones u decides (ours).

    Args:
        quantiles: [n M] ascending.
        returns: [n].
        uniforms: [n] in [0, 1).
    """
    num, g = quantiles.shape[-1], returns.unsqueeze(-1)
    below, up_to = (quantiles < g).sum(dim=-1), (quantiles <= g).sum(dim=-1)
    # With a run of equal quantiles the return has the mass of all of them.
    tied = (below + uniforms * (up_to - below)) / num
    left = quantiles.gather(-1, (below - 1).clamp(min=0).unsqueeze(-1)).squeeze(-1)
    right = quantiles.gather(-1, below.clamp(max=num - 1).unsqueeze(-1)).squeeze(-1)
    between = (below - 0.5 + (returns - left) / (right - left)) / num
    lowest, highest = 0.5 * uniforms / num, 1.0 - 0.5 * uniforms / num
    outside = torch.where(below == 0, lowest, highest)
    return torch.where(up_to > below, tied, torch.where((below == 0) | (below == num), outside, between))


def _mean(values: Tensor) -> Mean:
    return Mean(float(values.double().sum()), float(values.numel()))
