"""What is shown of one step, and how numbers are written for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Row = tuple[str, str]
"""One line of a table: what, and its value."""
TIME_LEFT, ESTIMATING = "time left", "estimating"
Interval = tuple[float, float]
"""Ends of an exact 95 % interval."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one training step did.

    Attributes:
        step: the step, counted from 1.
        num_steps: steps of the whole run.
        num_rollouts: trajectories trained on in this step.
        tokens_per_s: sampled tokens per second of wall time, over all rollout workers.
        observed_reward: mean observed (noisy) reward of the batch; NaN if none was scored.
        staleness: mean number of weight versions that trajectories were behind.
        step_s: wall time of the step, in seconds.
        time_left_s: expected time to the end of the run, in seconds; NaN if not known.
        accuracy: newest clean held-out accuracy by split, in [0, 1]; empty before the first evaluation.
        intervals: of the observed reward, as ``reward/observed_mean``, and of the accuracy of each split, as
            ``eval/SPLIT/accuracy``; none where scores are not all 0 or 1.
    """

    step: int
    num_steps: int
    num_rollouts: int
    tokens_per_s: float
    observed_reward: float
    staleness: float
    step_s: float
    time_left_s: float = math.nan
    accuracy: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, Interval] = field(default_factory=dict)

    @classmethod
    def from_metrics(
        cls,
        step: int,
        num_steps: int,
        metrics: Mapping[str, float],
        time_left_s: float = math.nan,
        evaluation: Mapping[str, float] | None = None,
    ) -> StepReport:
        """Pick the shown quantities out of a step's metrics (docs/metrics.md); NaN where one is absent.

        Args:
            evaluation: metrics of the newest evaluation; by default those in ``metrics``.
        """
        evaluation = metrics if evaluation is None else evaluation
        return cls(
            step=step,
            num_steps=num_steps,
            num_rollouts=int(metrics.get("rollout/num_trajectories", 0)),
            tokens_per_s=metrics.get("rollout/tokens_per_s", math.nan),
            observed_reward=metrics.get("reward/observed_mean", math.nan),
            staleness=metrics.get("rollout/staleness_mean", math.nan),
            step_s=metrics.get("time/step_s", math.nan),
            time_left_s=time_left_s,
            accuracy=accuracies(evaluation),
            intervals=intervals({**metrics, **evaluation}),
        )

    def rows(self) -> list[Row]:
        """The quantities as a reader wants them."""
        held_out = "  ".join(
            f"{split} {with_interval(value, self.intervals.get(f'eval/{split}/accuracy'))}"
            for split, value in self.accuracy.items()
        )
        return [
            ("throughput", f"{_number(self.tokens_per_s, '.0f')} tokens/s"),
            ("observed reward", with_interval(self.observed_reward, self.intervals.get("reward/observed_mean"))),
            ("clean held-out accuracy", held_out or "-"),
            ("staleness", _number(self.staleness, ".2f")),
            ("step time", f"{_number(self.step_s, '.1f')} s"),
            (TIME_LEFT, format_duration(self.time_left_s) if math.isfinite(self.time_left_s) else ESTIMATING),
        ]

    def line(self) -> str:
        """The report on one line."""
        shown = "  ".join(f"{name} {value}" for name, value in self.rows())
        return f"step {self.step}/{self.num_steps}  {self.num_rollouts} rollouts  {shown}"


def format_table(rows: Sequence[Row]) -> list[str]:
    """Two aligned columns, one line a row."""
    width = max((len(name) for name, _ in rows), default=0)
    return [f"{name:<{width}}  {value}".rstrip() for name, value in rows]


def format_duration(seconds: float) -> str:
    """``1:02:03``, ``2:03``; ``-`` for what is not known."""
    if not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def accuracies(metrics: Mapping[str, float]) -> dict[str, float]:
    """Clean held-out accuracy by split, out of metrics."""
    keys = {key: key.removeprefix("eval/").removesuffix("/accuracy") for key in metrics}
    return {split: metrics[key] for key, split in keys.items() if key == f"eval/{split}/accuracy"}


def intervals(metrics: Mapping[str, float]) -> dict[str, Interval]:
    """The interval of each metric that has one, which is in ``KEY_low`` and ``KEY_high``."""
    return {
        key: (metrics[f"{key}_low"], metrics[f"{key}_high"])
        for key in metrics
        if f"{key}_low" in metrics and f"{key}_high" in metrics
    }


def with_interval(value: float, interval: Interval | None) -> str:
    """``0.500 [0.401, 0.599]``; without an interval the value alone."""
    ends = "" if interval is None else f" [{interval[0]:.3f}, {interval[1]:.3f}]"
    return _number(value, ".3f") + ends


def _number(value: float, spec: str) -> str:
    """A number, or ``-`` where there is none."""
    return format(value, spec) if math.isfinite(value) else "-"
