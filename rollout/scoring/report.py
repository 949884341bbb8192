"""What scoring came to, and how noisy it was: from reward records. For reports only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rollout.audit.intervals import share_interval
from rollout.rewards.errors import RewardErrorKind
from rollout.scoring.record import RewardOutcome, RewardRecord


class RewardCounts:
    """What became of trajectories, counted between two steps.

    Attributes:
        num_replaced_workers: reward workers replaced, counted by whoever replaces them.
    """

    def __init__(self) -> None:
        self._records: Counter[str] = Counter()
        self.num_replaced_workers = 0

    def add(self, record: RewardRecord) -> None:
        """Count one record."""
        self._records["all"] += 1
        self._records[record.outcome] += 1
        self._records["retries"] += record.num_retries
        self._records["cached"] += record.cached
        self._records["gold_errors"] += bool(record.gold_error)
        if record.error_kind is not None:
            self._records[record.error_kind] += 1

    def take(self) -> dict[str, float]:
        """The counts since the last call."""
        # Taken and emptied in one go: what is scored during a step's report belongs to the next one.
        counts, replaced = self._records, self.num_replaced_workers
        self._records, self.num_replaced_workers = Counter(), 0
        metrics = {
            "reward/num_scored": float(counts[RewardOutcome.SCORED] + counts[RewardOutcome.PENDING]),
            "reward/num_abstained": float(counts[RewardOutcome.ABSTAINED]),
            "reward/num_missing": float(counts[RewardOutcome.MISSING]),
            "reward/num_errors": float(counts[RewardOutcome.ERROR]),
            "reward/num_infrastructure_errors": float(counts[RewardErrorKind.INFRASTRUCTURE]),
            "reward/num_invalid_scores": float(counts[RewardErrorKind.INVALID]),
            "reward/num_code_errors": float(counts[RewardErrorKind.CODE]),
            "reward/num_retries": float(counts["retries"]),
            "reward/num_replaced_workers": float(replaced),
        }
        if counts["gold_errors"]:
            metrics["reward/num_gold_errors"] = float(counts["gold_errors"])
        if counts["cached"]:
            metrics["reward/cache_hit_frac"] = counts["cached"] / counts["all"]
        return metrics


def reward_metrics(records: Sequence[RewardRecord]) -> dict[str, float]:
    """Means of observed and clean scores, and for scores in {0, 1} their exact 95 % intervals and the noise rates.

    ``reward/false_positive_rate`` is P(observed = 1 | clean = 0), ``reward/false_negative_rate`` is
    P(observed = 0 | clean = 1) and ``reward/j`` is 1 minus both (Youden's J); a rate without any case is left out.
    """
    observed = [record.observed for record in records if record.observed is not None]
    clean = [record.clean for record in records if record.clean is not None]
    both = [r for r in records if r.clean is not None and r.observed is not None]
    pairs = [(r.clean, r.observed) for r in both if r.clean is not None and r.observed is not None]
    metrics = {}
    if observed:
        metrics["reward/observed_mean"] = sum(observed) / len(observed)
    if interval := share_interval(observed):
        metrics |= {"reward/observed_mean_low": interval.low, "reward/observed_mean_high": interval.high}
    if clean:
        metrics["reward/clean_mean"] = sum(clean) / len(clean)
    if interval := share_interval(clean):
        metrics |= {"reward/clean_mean_low": interval.low, "reward/clean_mean_high": interval.high}
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
