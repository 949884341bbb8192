"""Every preset trains on the demo task through real Ray, vLLM and DeepSpeed, all in the same processes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from actors.ledger.report import build_report
from actors.loop.sampling_budget import NOT_ALLOTTED
from cluster.config.run_config import load_config
from learner.algorithms.catalogue import build_algorithm
from learner.algorithms.presets import PRESETS
from tests.integration.shared_run import SharedRun
from tests.integration.whole_runs import WriteConfig, read_metrics

pytestmark = pytest.mark.slow

OPPONENTS = ("distrlvr", "papo", "ppo-ensemble", "vrpo-raven")
"""Newest of the methods that the study compares with."""
LONG = ("cql-contrast", "dvpo", "grpo", "ppo-max", "recap", "robust-bellman", "vrpo-dvpo")
"""Of each kind of state that a run carries along, one is trained longer."""


def num_steps(preset: str) -> int:
    """Updates of the test."""
    return 20 if preset in OPPONENTS else 12 if preset in LONG else 4


def small(preset: str) -> dict[str, Any]:
    """The preset with a critic of a size that suits the tiny model."""
    options = PRESETS[preset].options
    has_law = any(name in PRESETS[preset].type for name in ("dvpo", "dist_rlvr"))
    quantiles = options.get("critic", {}).get("num_quantiles", 200 if has_law else 1)
    shrunk: dict[str, Any] = {"preset": preset}
    if quantiles > 16:
        shrunk["critic"] = {"num_quantiles": 16}
    if "dvpo" in PRESETS[preset].type:
        shrunk |= {"alpha": 0.25, "beta": 0.25}
    return shrunk


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_preset_trains(preset: str, shared_run: SharedRun, write_config: WriteConfig, tmp_path: Path) -> None:
    noise = {"noise": [{"type": "symmetric_flip", "p": 0.3}]}
    number = num_steps(preset)
    training = {"num_steps": number, "prompts_per_step": 4, "samples_per_prompt": 4, "num_eval_prompts": 4}
    config_file = write_config(training=training, reward=noise, algorithm=small(preset))
    result = shared_run.train(config_file, tmp_path)
    config = load_config(config_file)
    assert result["step"] == number
    steps = read_metrics(tmp_path)
    assert [step["step"] for step in steps] == list(range(1, number + 1))
    allowed = {"critic/explained_variance", "reward/false_positive_rate", "reward/false_negative_rate", "reward/j"}
    for step in steps:
        bad = {key for key, value in step.items() if value is None or not math.isfinite(value)}
        assert bad <= allowed, f"not finite after step {step['step']}: {sorted(bad)}"
    first = build_algorithm(config.algorithm.name, config.algorithm.options).critic_only_updates(number)
    assert all("policy/grad_norm" not in step for step in steps[:first])
    assert all(step["policy/grad_norm"] >= 0.0 for step in steps[first:])


def test_a_sampling_budget_trains_on_as_many_trajectories_and_the_ledger_balances(
    shared_run: SharedRun, write_config: WriteConfig, tmp_path: Path
) -> None:
    """Samples that were not allotted are in the ledger with the reason, and none of them was ever sampled."""
    training: dict[str, Any] = {"num_steps": 20, "prompts_per_step": 4, "samples_per_prompt": 7, "num_eval_prompts": 4}
    training["sampling_budget"] = {"mean": 4, "pilot": 2}
    config_file = write_config(training=training, algorithm="grpo")
    assert shared_run.train(config_file, tmp_path)["step"] == 20
    steps = read_metrics(tmp_path)
    assert [step["rollout/num_trajectories"] for step in steps] == [16.0] * 20
    uneven = [step for step in steps if step.get("rollout/allotted_max", 4.0) > step.get("rollout/allotted_min", 4.0)]
    assert uneven, "a model that knows nothing is about as unsure of every prompt"
    assert all(3.0 <= step["rollout/allotted_min"] <= step["rollout/allotted_max"] <= 7.0 for step in uneven)
    assert all(step["rollout/num_dropped"] == step["rollout/partial_group_frac"] == 0.0 for step in steps)
    report = build_report(tmp_path)
    assert report.violations == ()
    dropped = [reasons for epoch in report.account.epochs for reasons in [epoch.dropped] if reasons]
    assert sum(reasons.pop(NOT_ALLOTTED) for reasons in dropped) == 20 * 4 * 3
    assert not any(dropped), "nothing was dropped for another reason"
