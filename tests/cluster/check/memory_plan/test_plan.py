"""The memory plan: against counted tensors, for the recipes with GPUs that are not there, and what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from benchmarks.memory_plan import CASES, Case, configuration, measured, planned
from cluster.check.machine import inspect_machine
from cluster.check.memory_plan.plan import GIB, Gpus, Planned, changed, plan_run
from cluster.cli.entry import main
from cluster.config.components import build_algorithm
from cluster.config.run_config import load_config
from rollout.component import UserError

RECIPES = Path(__file__).resolve().parents[4] / "configs" / "recipes"
SHAPES = RECIPES / "shapes"
OF_RECIPE = {
    "8b-8x80": [f"model.path={SHAPES / 'qwen3-8b'}"],
    "32b-4x8x80": [f"model.path={SHAPES / 'qwen3-32b'}", f"model.critic_path={SHAPES / 'qwen3-8b'}"],
    "8b-8x80-lora": [f"model.path={SHAPES / 'qwen3-8b'}"],
    "32b-4x8x80-lora": [f"model.path={SHAPES / 'qwen3-32b'}"],
}
BILLIONS = {
    "8b-8x80": (8.19, 7.57),
    "32b-4x8x80": (32.76, 7.57),
    "8b-8x80-lora": (8.19, 7.57),
    "32b-4x8x80-lora": (32.76, 31.98),
}


def plan_of(recipe: str, *overrides: str, **changes: Any) -> Planned:
    config = load_config(RECIPES / f"{recipe}.yaml", [*OF_RECIPE[recipe], *overrides])
    gpus = Gpus.parse(recipe.split("-")[1])
    return plan_run(changed(config, changes), build_algorithm(config), gpus)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["dvpo, ZeRO 3", "grpo, KL, adapters, activations again", "ppo, bfloat16, adapters of both, ZeRO 3"]
)
def test_within_a_fifth_of_counted_tensors(name: str) -> None:
    between, peak = measured(CASES[name])
    expected_between, expected_peak = planned(CASES[name])
    assert expected_between == pytest.approx(between, rel=0.2)
    assert expected_peak == pytest.approx(peak, rel=0.2)


@pytest.mark.parametrize("recipe", OF_RECIPE)
def test_the_recipes_fit(recipe: str) -> None:
    plan = plan_of(recipe)
    assert list(plan.problems()) == []
    assert plan.engine is not None and plan.engine.requests >= 8
    best = next(line for line in plan.lines() if line.startswith("best split"))
    rollout, learner = plan.config.rollout, plan.config.learner
    assert f"learner.num_workers {learner.num_workers}, rollout.num_workers {rollout.num_workers} " in best
    assert plan.critic is not None
    found = (plan.policy.num_weights / 1e9, plan.critic.num_weights / 1e9)
    assert found == pytest.approx(BILLIONS[recipe], abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", OF_RECIPE)
def test_every_option_of_the_recipes_is_one_of_vllm_and_deepspeed(recipe: str) -> None:
    from cluster.check.model import check_deepspeed
    from rollout.sampling.engine_args import check_values
    from rollout.sampling.vllm_options import engine_options

    config = plan_of(recipe).config
    check_deepspeed(config)
    options = engine_options(config.model.path, config.rollout, True, False)
    check_values(options, config.rollout.engine_args, on_gpu=True)
    with pytest.raises(UserError, match="no such engine argument"):
        check_values(options, {"max_num_batched_tokns": 1}, on_gpu=True)
    wrong = config.learner.model_copy(update={"deepspeed": {"zero_optimization": {"reduce_bucket_siz": 1}}})
    with pytest.raises(UserError, match=r"zero_optimization\.reduce_bucket_siz: .*did you mean 'reduce_bucket_size'"):
        check_deepspeed(config.model_copy(update={"learner": wrong}))


def test_what_does_not_fit_is_told_with_what_would() -> None:
    (problem,) = plan_of("8b-8x80", "learner.zero_stage=2").problems()
    assert problem.startswith("learner: a rank needs ") and "with learner.zero_stage: 3 it needs" in problem
    (problem,) = plan_of("8b-8x80", "learner.zero_stage=2", "model.gradient_checkpointing=false").problems()
    assert "model.gradient_checkpointing: true, learner.zero_stage: 3 together" in problem
    (problem,) = plan_of("8b-8x80", "rollout.num_workers=4").problems()
    assert problem.startswith("cluster: the cluster is too small: the run needs") and "9 GPU" in problem
    small = replace(plan_of("8b-8x80"), gpus=Gpus(nodes=1, per_node=8, num_bytes=8 * GIB))
    assert any("no setting is enough" in problem for problem in small.problems())


def test_what_saves_memory_saves_it() -> None:
    base = plan_of("8b-8x80").rank
    offloaded = plan_of("8b-8x80", "learner.offload=optimizer").rank
    assert offloaded.optimiser == offloaded.gradients == 0 and offloaded.weights == base.weights
    assert plan_of("8b-8x80", "learner.offload=all").rank.weights == 0
    kept = plan_of("8b-8x80", "model.gradient_checkpointing=false").rank
    assert kept.activations > 10 * base.activations
    fewer = plan_of("8b-8x80", "learner.num_workers=4", "rollout.num_workers=4").rank
    assert fewer.optimiser == pytest.approx(base.optimiser * 5 / 4, rel=1e-6)


def test_adapters_save_optimiser_states_gradients_and_the_copy_for_a_kl_penalty() -> None:
    whole = plan_of("8b-8x80", "algorithm={preset: dvpo, kl_coef: 0.01}").rank
    policy = plan_of("8b-8x80", "algorithm={preset: dvpo, kl_coef: 0.01}", "model.lora={}").rank
    both = plan_of("8b-8x80", "algorithm={preset: dvpo, kl_coef: 0.01}", "model.lora={critic: adapter}")
    assert whole.reference > 0 == policy.reference
    assert whole.optimiser > 2 * policy.optimiser and policy.optimiser > 50 * both.rank.optimiser
    assert policy.weights > both.rank.weights > 8.19e9 * 2 / 5
    # Rank 16 on seven layers of Qwen3-8B: 4096 <-> 4096, 1024, 1024, 4096, and 4096 <-> 12288 three times.
    widths = 2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 12288)
    assert both.policy.adapters == 16 * 36 * widths and both.policy.adapter_ranks == 16 * 36 * 7
    with pytest.raises(UserError, match=r"model\.lora\.target_modules: the model has no linear layer 'query'"):
        plan_of("8b-8x80", "model.lora={target_modules: [query]}")


def test_the_command(tmp_path: Path) -> None:
    configuration(Case(run={"algorithm": "ppo"}), tmp_path)
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["config.json"], "no weights are needed"
    file = str(tmp_path / "run.yaml")
    done = CliRunner().invoke(main, ["plan", file, "--gpus", "1x8"])
    assert done.exit_code == 0 and done.output.startswith("memory of a learner rank at its peak: "), done.output
    large = [str(RECIPES / "8b-8x80.yaml"), "--set", OF_RECIPE["8b-8x80"][0]]
    done = CliRunner().invoke(main, ["plan", *large, "--gpus", "8x24"])
    assert done.exit_code == 2 and "8b-8x80.yaml:" in done.output and "learner" in done.output, done.output
    done = CliRunner().invoke(main, ["plan", file, "--gpus", "eight"])
    assert done.exit_code == 2 and "--gpus: must be like 8x80 or 4x8x80" in done.output


@pytest.mark.parametrize(
    ("text", "expected"), [("8x80", (1, 8, 80)), ("4x8x80", (4, 8, 80)), ("0x80", None), ("8", None), ("8x", None)]
)
def test_gpus_as_written(text: str, expected: tuple[int, ...] | None) -> None:
    if expected is None:
        with pytest.raises(UserError, match="--gpus"):
            Gpus.parse(text)
        return
    found = Gpus.parse(text)
    assert (found.nodes, found.per_node, found.num_bytes // GIB) == expected


def test_check_plans_the_gpus_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from cluster.check.check import CheckReport, check_gpu_memory

    config = plan_of("8b-8x80").config
    algorithm, report = build_algorithm(config), CheckReport()
    check_gpu_memory(config, algorithm, replace(inspect_machine(), gpu_mib=(81_559,) * 8), report)
    assert report.errors == [] and report.plan[0].startswith("memory of a learner rank")
    check_gpu_memory(config, algorithm, replace(inspect_machine(), gpu_mib=(40_960,) * 8), report)
    assert report.errors[0].startswith("learner: a rank needs")
