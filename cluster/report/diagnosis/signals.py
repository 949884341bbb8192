"""What several rules ask of a run: is it learning, how sure, and from which score one can tell."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from cluster.report.metric_table import Curve
from cluster.report.run_record import RunRecord
from cluster.report.samples import LoggedTrajectory

OBSERVED, CLEAN = "reward/observed_mean", "reward/clean_mean"
SURE = 3.0
"""Standard errors beyond which a change of a curve counts as one."""
FELL = 0.1
"""Fall of a score, as a share of its range, that a user would call a loss; seeds of one run differ by half of it."""


def reward_scale(run: RunRecord) -> float:
    """The size of one reward, for thresholds that are shares of it: 1 for scores of 0 and 1."""
    values = [sample.observed for sample in run.trajectories if sample.observed is not None]
    width = max(values) - min(values) if values else 0.0
    curve = run.metrics.curve(OBSERVED).values
    means = max(curve) - min(curve) if curve else 0.0
    # Means of batches alone say little of the range; 0/1 rewards are the rule.
    return max(1.0, width, means)


def true_score(run: RunRecord) -> tuple[str, Curve]:
    """The reward that says most of what the policy can: clean where it is known, else observed."""
    key = CLEAN if CLEAN in run.metrics else OBSERVED
    return key, run.metrics.curve(key)


def rose(curve: Curve, least: float) -> bool:
    """Whether a curve is surely higher at its end, by ``least``."""
    return len(curve) > 0 and curve.rise >= least and curve.rise > SURE * curve.rise_error


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Held-out accuracy of the first split, which is in-domain.

    Attributes:
        key: of the metric.
        first, best, last: of its evaluations; NaN without one.
        error: half the width of the newest interval, or .05 where there is none.
        number: evaluations.
    """

    key: str
    first: float
    best: float
    last: float
    error: float
    number: int

    @property
    def fell(self) -> float:
        """How far it is below its best, 0 without two evaluations."""
        return self.best - self.last if self.number > 1 else 0.0

    @property
    def gained(self) -> float:
        """Since the start, 0 without two evaluations."""
        return self.last - self.first if self.number > 1 else 0.0


def held_out(run: RunRecord) -> HeldOut:
    """The first split's accuracy."""
    if not run.metrics.splits:
        return HeldOut("eval", math.nan, math.nan, math.nan, math.inf, 0)
    key = f"eval/{run.metrics.splits[0]}/accuracy"
    values = run.metrics.curve(key).values
    if not values:
        return HeldOut(key, math.nan, math.nan, math.nan, math.inf, 0)
    low, high = run.metrics.last(f"{key}_low"), run.metrics.last(f"{key}_high")
    error = (high - low) / 2 if math.isfinite(high - low) else 0.05
    return HeldOut(key, values[0], max(values), values[-1], error, len(values))


def lost(run: RunRecord) -> float:
    """How far the policy is below its best, by held-out accuracy or the best known reward, whichever fell more."""
    _, curve = true_score(run)
    by_reward = curve.best - fmean(curve.late) if len(curve) else 0.0
    return max(held_out(run).fell, by_reward / reward_scale(run))


def share(samples: list[LoggedTrajectory], holds: Callable[[LoggedTrajectory], bool]) -> float:
    """Share of some trajectories; 0 of none."""
    return sum(map(holds, samples)) / len(samples) if samples else 0.0


def split_thirds(run: RunRecord) -> tuple[list[LoggedTrajectory], list[LoggedTrajectory]]:
    """Trajectories of the first and of the last third of the steps that have some."""
    steps = sorted({sample.step for sample in run.trajectories})
    if len(steps) < 3:
        return [], []
    third = len(steps) // 3
    first, last = set(steps[:third]), set(steps[-third:])
    return [s for s in run.trajectories if s.step in first], [s for s in run.trajectories if s.step in last]


def has_gradient(run: RunRecord) -> bool:
    """Whether most prompts give methods that compare samples something to compare."""
    same = run.metrics.late("reward/zero_variance_group_frac")
    return not same > 0.9
