"""Metrics of one step from records."""

from __future__ import annotations

from dataclasses import replace

import pytest

from actors.groups import Dropped, Group, Sample
from actors.loop.step_metrics import EngineRates, rollout_metrics
from rollout.scoring.record import RewardOutcome, RewardRecord
from rollout.trajectory import FinishReason, Prompt, TrajectorySummary


def sample(clean: float, observed: float, tokens: int, versions: tuple[int, int], reason: FinishReason) -> Sample:
    record = RewardRecord(
        prompt_id="p",
        sample_index=0,
        observed=observed,
        clean=clean,
        corrupted=clean != observed,
        outcome=RewardOutcome.SCORED,
    )
    summary = TrajectorySummary(
        trajectory_id="p#0",
        num_prompt_tokens=5,
        num_response_tokens=tokens,
        finish_reason=reason,
        policy_version_min=versions[0],
        policy_version_max=versions[1],
    )
    return Sample(summary, record, None)


def test_rollout_metrics_of_a_small_batch() -> None:
    stop, cut = FinishReason.STOP, FinishReason.LENGTH
    prompt = Prompt(prompt_id="p", messages=(), token_ids=(1,), reference=None, task="t")
    missing = Dropped("p#1", "boom")
    groups = [
        Group(0, "a", prompt, 2, 3, [sample(1, 1, 4, (3, 3), stop), sample(1, 0, 6, (2, 3), cut)]),
        Group(1, "b", prompt, 3, 3, [sample(0, 1, 2, (3, 3), stop), sample(0, 1, 8, (3, 3), stop)], [missing]),
    ]
    metrics = rollout_metrics(groups, version=4)
    assert metrics["rollout/num_trajectories"] == 4
    assert metrics["rollout/num_dropped"] == 1
    assert metrics["rollout/num_response_tokens"] == 20
    assert metrics["rollout/response_tokens_mean"] == 5
    assert metrics["rollout/truncated_frac"] == 0.25
    assert metrics["rollout/staleness_mean"] == pytest.approx((1 + 2 + 1 + 1) / 4)
    assert metrics["rollout/staleness_max"] == 2
    assert metrics["rollout/mixed_version_frac"] == 0.25
    assert metrics["reward/observed_mean"] == 0.75
    assert metrics["reward/clean_mean"] == 0.5
    assert metrics["reward/corrupted_frac"] == 0.75
    assert metrics["reward/false_positive_rate"] == 1.0
    assert metrics["reward/false_negative_rate"] == 0.5
    assert metrics["reward/j"] == -0.5
    assert metrics["reward/zero_variance_group_frac"] == 0.5
    assert metrics["reward/clean_zero_variance_group_frac"] == 1.0
    assert metrics["rollout/partial_group_frac"] == 0.5


def test_groups_without_spread() -> None:
    """Observed and clean scores each by themselves; the clean share leaves out groups with an unknown clean score."""
    stop, prompt = FinishReason.STOP, Prompt(prompt_id="p", messages=(), token_ids=(1,), reference=None, task="t")

    def group(*scores: tuple[float, float]) -> Group:
        return Group(0, "a", prompt, len(scores), 3, [sample(*pair, 4, (3, 3), stop) for pair in scores])

    same, noisy, hidden, real = (
        group((1, 1), (1, 1)),
        group((0, 1), (0, 0), (0, 0)),
        group((1, 0), (0, 0)),
        group((0, 0), (1, 1)),
    )
    unknown = group((0, 1), (0, 1))
    unknown.samples[0].reward = replace(unknown.samples[0].reward, clean=None)
    alone = group((1, 1))
    metrics = rollout_metrics([same, noisy, hidden, real, unknown, alone], version=3)
    assert metrics["reward/zero_variance_group_frac"] == 3 / 5
    assert metrics["reward/clean_zero_variance_group_frac"] == 2 / 4
    assert rollout_metrics([alone], 3).keys().isdisjoint({"reward/zero_variance_group_frac"})
    assert "reward/clean_zero_variance_group_frac" not in rollout_metrics([unknown], 3)


def test_turns_and_outcomes_are_means_over_the_trajectories_that_have_them() -> None:
    samples = [sample(1, 1, 4, (3, 3), FinishReason.STOP) for _ in range(4)]
    for index, (turns, outcome) in enumerate(
        [(1, {}), (3, {"won": 1.0}), (2, {"won": 0.0, "moves/legal": 5.0}), (2, {})]
    ):
        samples[index].summary = replace(samples[index].summary, num_turns=turns, outcome_metrics=outcome)
    metrics = rollout_metrics(
        [Group(0, "a", Prompt(prompt_id="p", messages=(), token_ids=(1,), reference=None, task="t"), 4, 3, samples)],
        version=3,
    )
    assert metrics["rollout/num_turns"] == 2.0
    found = {name: value for name, value in metrics.items() if name.startswith("environment/")}
    assert found == {"environment/won": 0.5, "environment/moves/legal": 5.0}


def test_engine_rates_are_differences_of_totals() -> None:
    base = {"preemptions": 0.0, "running": 1.0, "waiting": 0.0, "kv_cache_usage": 0.5}
    rates = EngineRates()

    def both(**totals: float) -> dict[str, dict[str, float]]:
        return dict.fromkeys(("rollout-0", "rollout-1"), base | totals)

    first = rates.metrics(both(generated_tokens=100.0, prompt_tokens=50.0), seconds=2.0)
    assert first["vllm/generated_tokens_per_s"] == 100.0
    second = rates.metrics(both(generated_tokens=160.0, prompt_tokens=50.0, preemptions=1.0), 4.0)
    assert second["vllm/generated_tokens_per_s"] == 30.0
    assert second["vllm/prompt_tokens_per_s"] == 0.0
    assert second["vllm/num_preemptions"] == 2.0
    assert second["vllm/kv_cache_usage"] == 0.5


def test_a_replaced_engine_counts_from_zero_and_one_that_is_being_replaced_not_at_all() -> None:
    rates = EngineRates()
    old = {"generated_tokens": 500.0, "prompt_tokens": 0.0, "preemptions": 0.0, "running": 1.0, "waiting": 0.0}
    old["kv_cache_usage"] = 0.25
    rates.metrics({"rollout-0": old, "rollout-1": old}, 1.0)
    alone = rates.metrics({"rollout-0": old | {"generated_tokens": 600.0}}, 1.0)
    assert (alone["vllm/num_engines"], alone["vllm/generated_tokens_per_s"]) == (1.0, 100.0)
    again = rates.metrics(
        {"rollout-0": old | {"generated_tokens": 600.0}, "rollout-1": old | {"generated_tokens": 7.0}}, 1.0
    )
    assert (again["vllm/num_engines"], again["vllm/generated_tokens_per_s"]) == (2.0, 7.0)
    assert rates.metrics({}, 1.0)["vllm/kv_cache_usage"] == 0.0
