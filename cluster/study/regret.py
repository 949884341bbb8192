"""How far one method is behind the best of each cell, chosen in hindsight: the price of not knowing the noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.study.statistics import Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Regret:
    """Of one task, noise and metric.

    Attributes:
        cell: task, noise and metric, as a row names them.
        score: mean over seeds of the method's final score.
        best: the method with the highest mean, the method itself included.
        best_score: its mean.
    """

    cell: str
    score: float
    best: str
    best_score: float

    @property
    def regret(self) -> float:
        """At least 0; it is a little too large where several methods are equally good, as the luckiest is the best."""
        return self.best_score - self.score


def regret_of(cell: str, finals: Mapping[str, Scores], method: str, excluded: frozenset[str]) -> Regret:
    """Compare the means over the same seeds; ``excluded`` are no methods but bounds, such as clean rewards."""
    means = {name: float(scores.mean()) for name, scores in finals.items() if name == method or name not in excluded}
    best = max(means, key=lambda name: (means[name], name == method))
    return Regret(cell=cell, score=means[method], best=best, best_score=means[best])


def regret_lines(method: str, found: list[Regret]) -> list[str]:
    """The table, the worst cell first, and what it comes to."""
    if not found:
        return []
    ordered = sorted(found, key=lambda one: -one.regret)
    mean = sum(one.regret for one in found) / len(found)
    lines = [
        "",
        f"## Regret of {method}",
        "",
        f"Against the best method of each cell, chosen in hindsight: {100 * mean:.1f} points on average over "
        f"{len(found)} cells, {100 * ordered[0].regret:.1f} in the worst ({ordered[0].cell}).",
        "",
        "| cell | score | best | its score | regret |",
        "|---|---|---|---|---|",
    ]
    return lines + [
        f"| {one.cell} | {one.score:.3f} | {one.best} | {one.best_score:.3f} | {one.regret:.3f} |" for one in ordered
    ]
