"""How noisy the rewards were: observed against clean scores, from reward records. For reports only."""

from __future__ import annotations

from collections.abc import Sequence

from rollout.trajectory import RewardOutcome, RewardRecord


def reward_metrics(records: Sequence[RewardRecord]) -> dict[str, float]:
    """Means of observed and clean scores, failures by kind, and for scores in {0, 1} the noise rates.

    ``reward/false_positive_rate`` is P(observed = 1 | clean = 0), ``reward/false_negative_rate`` is
    P(observed = 0 | clean = 1) and ``reward/j`` is 1 minus both (Youden's J); a rate without any case is left out.
    """
    observed = [record.observed for record in records if record.observed is not None]
    clean = [record.clean for record in records if record.clean is not None]
    both = [r for r in records if r.clean is not None and r.observed is not None]
    pairs = [(r.clean, r.observed) for r in both if r.clean is not None and r.observed is not None]
    metrics = {
        "reward/num_scored": float(sum(record.outcome is RewardOutcome.SCORED for record in records)),
        "reward/num_errors": float(sum(record.outcome is RewardOutcome.ERROR for record in records)),
        "reward/num_missing": float(sum(record.outcome is RewardOutcome.MISSING for record in records)),
    }
    if observed:
        metrics["reward/observed_mean"] = sum(observed) / len(observed)
    if clean:
        metrics["reward/clean_mean"] = sum(clean) / len(clean)
    if pairs:
        metrics["reward/corrupted_frac"] = sum(record.corrupted for record in both) / len(both)
        metrics |= noise_rates(pairs)
    return metrics


def noise_rates(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """False positive and false negative rate and J of (clean, observed) scores; {} unless all are 0 or 1."""
    if not all(value in (0.0, 1.0) for pair in pairs for value in pair):
        return {}
    rates = {}
    on_wrong = [observed for clean, observed in pairs if clean == 0.0]
    on_right = [observed for clean, observed in pairs if clean == 1.0]
    if on_wrong:
        rates["reward/false_positive_rate"] = sum(on_wrong) / len(on_wrong)
    if on_right:
        rates["reward/false_negative_rate"] = 1.0 - sum(on_right) / len(on_right)
    if len(rates) == 2:
        rates["reward/j"] = 1.0 - sum(rates.values())
    return rates
