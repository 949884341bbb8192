"""Counts of outcomes."""

from __future__ import annotations

from rollout.rewards.errors import RewardErrorKind
from rollout.scoring.record import RewardOutcome, RewardRecord
from rollout.scoring.report import RewardCounts


def record(outcome: RewardOutcome, kind: RewardErrorKind | None = None, retries: int = 0) -> RewardRecord:
    return RewardRecord(prompt_id="p", sample_index=0, outcome=outcome, error="", error_kind=kind, num_retries=retries)


def test_every_outcome_is_counted_once_and_by_kind() -> None:
    counts = RewardCounts()
    numbers = {RewardOutcome.SCORED: 1, RewardOutcome.PENDING: 4, RewardOutcome.ABSTAINED: 2, RewardOutcome.MISSING: 3}
    assert {*numbers, RewardOutcome.ERROR} == set(RewardOutcome)
    for outcome, number in numbers.items():
        for _ in range(number):
            counts.add(record(outcome))
    for number, kind in enumerate(RewardErrorKind, start=1):
        for _ in range(number):
            counts.add(record(RewardOutcome.ERROR, kind, retries=kind is RewardErrorKind.INFRASTRUCTURE))
    counts.num_replaced_workers = 2
    assert counts.take() == {
        "reward/num_scored": 5,  # those that votes will score among them
        "reward/num_abstained": 2,
        "reward/num_missing": 3,
        "reward/num_errors": 6,
        "reward/num_infrastructure_errors": 1,
        "reward/num_invalid_scores": 2,
        "reward/num_code_errors": 3,
        "reward/num_retries": 1,
        "reward/num_replaced_workers": 2,
    }
    assert set(counts.take().values()) == {0.0}


def test_cache_hits_are_a_share_of_all_trajectories() -> None:
    counts = RewardCounts()
    for cached in (True, False, False, False):
        counts.add(
            RewardRecord(
                prompt_id="p", sample_index=0, observed=1.0, clean=1.0, outcome=RewardOutcome.SCORED, cached=cached
            )
        )
    assert counts.take()["reward/cache_hit_frac"] == 0.25
