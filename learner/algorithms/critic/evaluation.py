"""What a target says of a whole batch, found part by part: the value distribution of one part is there at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.algorithms.critic.targets.base import CriticTarget, OldCritic
from learner.batch import TrainBatch
from learner.maths.calibration import CriticFit
from learner.maths.collective import Collective
from learner.maths.quantiles.quantiles import quantile_mean
from learner.metrics import Metrics, merge_metrics
from learner.models.kept_values import KeptOutput, KeptValues
from learner.models.spec import CriticOutput, Place

See = Callable[[Place], OldCritic]
"""The old critic over the rows and columns of one part."""


@dataclass(frozen=True)
class Evaluated:
    """Of all rows of this rank.

    Attributes:
        advantages: [batch seq], before normalisation.
        targets: [batch seq K] atoms that the critic regresses to, or None where they are in ``kept_targets``.
        kept_targets: the same in parts.
        value_means, target_means: [batch seq], means of the ensemble's and of the targets' distribution.
        metrics: of the target, and of the critic's fit.
    """

    advantages: Tensor
    targets: Tensor | None
    kept_targets: KeptValues | None
    value_means: Tensor
    target_means: Tensor
    metrics: Metrics


def evaluate(
    target: CriticTarget, output: CriticOutput, see: See, batch: TrainBatch, fit: CriticFit, world: Collective
) -> Evaluated:
    """Show the target one part after another, or all at once if it cannot do with less.

    Args:
        output: of the critic before the update.
        see: what the target is shown of a part.
        batch: with the corrected scores.
        fit: measures how well the critic predicted, on the way.
    """
    mask = batch.action_mask
    places = output.places if target.by_rows else [(slice(0, len(batch)), slice(0, mask.shape[1]))]
    lowest = _lowest(places, see, mask, world) if target.needs_lowest else None
    kept = KeptValues(mask.shape) if isinstance(output, KeptOutput) and target.by_rows else None
    columns = _Columns(batch.rewards)
    metrics: list[Metrics] = []
    targets: Tensor | None = None
    for place in places:
        old = see(place)
        found = target(old if lowest is None else old.with_lowest(lowest))
        named = {"advantages": found.advantages, "values": old.values, **found.columns}
        named |= {"value means": quantile_mean(old.quantiles), "target means": quantile_mean(found.targets)}
        for name, column in named.items():
            columns.put(name, place, column)
        fit.add(place, old.output.quantile_values, old.output.raw_crossing_frac, old.quantiles)
        metrics.append(found.metrics)
        if kept is None:
            targets = found.targets
        else:
            kept.add(place, old.mask, found.targets[old.mask])
    metrics += [target.summary(columns.found, mask)] if columns.found else []
    metrics.append(fit.metrics(columns["values"], output.head_disagreement))
    return Evaluated(
        advantages=columns["advantages"],
        targets=targets,
        kept_targets=kept,
        value_means=columns["value means"],
        target_means=columns["target means"],
        metrics=metrics[0] if len(metrics) == 1 else merge_metrics(metrics),
    )


def _lowest(places: Sequence[Place], see: See, mask: Tensor, world: Collective) -> Tensor:
    """The least value of all ranks, 0 without any."""
    values = [see(place).values[mask[place]] for place in places]
    population = world.gather(torch.cat(values) if values else torch.zeros(0, device=mask.device))
    return population.min() if population.numel() else population.new_zeros(())


class _Columns:
    """[batch seq] columns that fill up part by part."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self.found: dict[str, Tensor] = {}

    def put(self, name: str, place: Place, values: Tensor) -> None:
        if values.shape == self._like.shape:
            self.found[name] = values
            return
        self.found.setdefault(name, torch.zeros_like(self._like, dtype=values.dtype))[place] = values

    def __getitem__(self, name: str) -> Tensor:
        return self.found[name] if name in self.found else torch.zeros_like(self._like)
