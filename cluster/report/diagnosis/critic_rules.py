"""Causes in the critic."""

from __future__ import annotations

import math

from cluster.report.diagnosis.base import Evidence, Finding, Rule, Unknown
from cluster.report.run_record import RunRecord


class CriticCollapse(Rule):
    """A critic that is worse than a constant, or far from the returns."""

    cause, title = "critic_collapse", "The critic has collapsed"
    why = (
        "An explained variance of -.2 is a critic that is worse than saying the mean; a value that is off by a quarter "
        "of a standard deviation of the returns after 20 updates, and on that side of them in all of the second half, "
        "never arrived there; one that swings around them is on its way. About 0 is no collapse: under heavy noise "
        "returns can hardly be explained."
    )
    consequences = frozenset({"lr_too_low"})
    WORSE, BIASED, LEAST_STEPS = -0.2, 0.25, 20
    HAD, KEPT = 0.15, 0.3

    def examine(self, run: RunRecord) -> Finding | Unknown | None:
        metrics, key = run.metrics, "critic/explained_variance"
        if key not in metrics and not metrics.num_not_finite(key):
            return None  # a method without a critic
        if metrics.last_step < self.LEAST_STEPS:
            return self.unknown(f"fewer than {self.LEAST_STEPS} updates are done")
        evidence = []
        explained, curve = metrics.late(key), metrics.curve(key)
        spread = _spread(run)
        varied = spread > 0.2  # of a 0/1 reward: between 4 and 96 % of the returns are 1
        if varied and explained <= self.WORSE:
            evidence.append(Evidence(source=key, text=f"explained variance {explained:.2f}: worse than a constant"))
        elif varied and len(curve) and curve.best >= self.HAD and explained <= self.KEPT * curve.best:
            text = f"explained variance was {curve.best:.2f} and is {explained:.2f}"
            evidence.append(Evidence(source=key, text=text))
        bias = metrics.late("critic/bias")
        off = abs(bias) >= self.BIASED * spread and self._stays_off(run)
        if off:
            text = f"values are off by {bias:+.2f}; returns have a standard deviation of {spread:.2f}"
            evidence.append(Evidence(source="critic/bias", text=text))
        if number := metrics.num_not_finite("critic/loss"):
            evidence.append(Evidence(source="critic/loss", text=f"the loss was not finite in {number} steps"))
        if not evidence:
            return None
        rate = metrics.last("critic/lr")
        slow = off and abs(bias) > 0.8 * abs(metrics.early("critic/bias"))
        factor = 10.0 if slow and not explained <= self.WORSE else 0.1
        way = "it never arrived: more" if factor > 1.0 else "it overshoots: less"
        return self.found(
            "Advantages are taken from values that say nothing of the returns.",
            evidence,
            [
                f"{way}: dvpo train CONFIG --set learner.critic_lr={factor * rate:.1g}",
                "give it a head start: --set learner.critic_warmup_steps=10",
                "or a method without a critic: --set algorithm=grpo (with samples_per_prompt of 4 or more)",
            ],
            0.6 + 0.2 * (explained <= self.WORSE if math.isfinite(explained) else True),
        )

    def _stays_off(self, run: RunRecord) -> bool:
        """Whether values are on one side of the returns all the time in the second half."""
        values = run.metrics.curve("critic/bias").values
        second = values[len(values) // 2 :]
        return min(second) > 0.0 or max(second) < 0.0


def _spread(run: RunRecord) -> float:
    """Standard deviation of returns: of 0/1 rewards by their mean, else the critic's running scale."""
    scale, mean = run.metrics.late("critic/scale"), run.metrics.late("critic/return_mean")
    if 0.0 <= mean <= 1.0:
        return math.sqrt(max(1e-4, mean * (1.0 - mean)))
    return scale if math.isfinite(scale) and scale > 0.0 else max(1e-3, abs(mean))
