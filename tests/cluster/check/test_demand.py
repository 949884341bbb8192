"""What a run needs of memory, shared memory and disk, by hand and against machines that lack some."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from cluster.check.demand import ModelSizes, compare, demand_of, model_sizes
from cluster.check.machine import Machine
from cluster.config.model_folder import num_critic_weights, num_policy_weights
from cluster.config.object_store import FLOOR_MIB, object_store_mib, object_store_need_mib
from cluster.config.run_config import RunConfig
from learner.config import ModelConfig

M135 = 134_515_008
"""Parameters of a model with 135 M."""
SIZES = ModelSizes(policy=M135, critic=0, num_layers=30, hidden=576, has_reference=False)
MACHINE = Machine(2, "some CPU", frozenset({"avx2"}), (), 64_000, 4_000, 50_000)


def config(**sections: object) -> RunConfig:
    training = {"prompts_per_step": 8, "samples_per_prompt": 2, "num_steps": 100}
    return RunConfig.model_validate({"model": {"path": "m"}, "training": training, **sections})


@pytest.mark.parametrize("policy", [M135, 1_500_000_000, 7_000_000_000])
def test_the_store_holds_the_weights_that_are_served_and_the_next_ones(policy: int) -> None:
    found = object_store_mib(config(), policy)
    assert found * 2**20 > 2 * policy * 4
    assert found * 2**20 < 2.5 * policy * 4
    assert found > 512 or policy < M135


def test_a_small_model_gets_the_floor_and_a_given_size_stays() -> None:
    assert object_store_mib(config(), 100_000) == FLOOR_MIB
    assert object_store_mib(config(), 0) == FLOOR_MIB
    assert object_store_mib(config(cluster={"object_store_mib": 96}), M135) == 96


def test_trajectories_and_the_route_count() -> None:
    base = object_store_need_mib(config(), M135)
    many = {"prompts_per_step": 4096, "samples_per_prompt": 8, "num_steps": 100}
    stale = object_store_need_mib(config(training={**many, "max_staleness": 3}), M135)
    tokens = 4096 * 8 * 4 * config().rollout.longest_tokens
    assert stale - base == pytest.approx(1.1 * tokens * 24 / 2**20, rel=0.01)
    on_gpu = {"gpus_per_rollout_worker": 1, "gpus_per_learner_worker": 1}
    assert object_store_need_mib(config(cluster=on_gpu), M135) == object_store_need_mib(config(), 0)


def test_a_given_size_that_is_too_small_is_told_with_what_is_enough() -> None:
    need = object_store_need_mib(config(), M135)
    for given, told in ((96, True), (512, True), (need - 1, True), (need, False), (4_000, False)):
        run = config(cluster={"object_store_mib": given})
        warnings = [w for w in compare(run, demand_of(run, SIZES), MACHINE).warnings if "object_store" in w]
        assert bool(warnings) is told
        assert not told or f"give {need} or more" in warnings[0]


@pytest.mark.parametrize(
    ("free", "policy", "kind", "told"),
    [
        (64, M135, "warnings", "so Ray falls back to a file in /tmp, which is slow: make /dev/shm larger"),
        (1_000, M135, "warnings", "1000 MiB are free in /dev/shm, so Ray falls back"),
        (None, M135, "warnings", "0 MiB are free in /dev/shm, so Ray falls back"),
        (1_000, 7_000_000_000, "errors", "Ray does not start so large a store elsewhere"),
    ],
)
def test_shared_memory_that_is_too_small(free: int | None, policy: int, kind: str, told: str) -> None:
    machine = replace(MACHINE, shared_memory_free_mib=free, memory_available_mib=10**6, disk_free_mib=10**6)
    found = compare(config(), demand_of(config(), replace(SIZES, policy=policy)), machine)
    (line,) = getattr(found, kind)
    assert line.startswith("cluster.object_store_mib: the run needs") and told in line
    assert not (found.errors if kind == "warnings" else found.warnings)


@pytest.mark.parametrize(
    ("free", "errors", "warnings"),
    [(50_000, [], []), (2_500, [], ["training.keep_checkpoints"]), (1_000, ["output_dir"], [])],
)
def test_disk(free: int, errors: list[str], warnings: list[str]) -> None:
    """A checkpoint of this policy takes 2 x 4 bytes for weights and 12 for AdamW, of each parameter."""
    demand = demand_of(config(), SIZES)
    assert demand.checkpoint == pytest.approx(20 * M135 / 2**20, abs=1)
    assert demand.checkpoints == 4 * demand.checkpoint  # three are kept while the next one is written
    once = config(training={"checkpoint_every_steps": 0, "num_steps": 100})
    assert demand_of(once, SIZES).checkpoints == demand.checkpoint
    found = compare(config(), demand, replace(MACHINE, disk_free_mib=free))
    assert [error.split(":")[0] for error in found.errors] == errors
    assert [warning.split(":")[0] for warning in found.warnings] == warnings


def test_memory() -> None:
    demand = demand_of(config(), SIZES)
    assert compare(config(), demand, MACHINE).warnings == []
    short = replace(MACHINE, memory_available_mib=4_000)
    (warning,) = compare(config(), demand, short).warnings
    smaller = demand_of(config(learner={"micro_batch_tokens": 1024}), SIZES)
    assert demand.learners - smaller.learners > 5_000
    assert "learning" in warning and "sampling" in warning and "3.9 GiB are available" in warning
    critic = demand_of(config(), replace(SIZES, critic=M135))
    assert critic.learners - demand.learners > 4 * 4 * M135 / 2**20  # weights, gradient and two moments at least
    frozen = demand_of(config(logging={"kl_to_start_every": 0}), replace(SIZES, has_reference=True))
    assert frozen.learners == demand.learners  # it takes the place of the copy that a look loads
    off = demand_of(config(logging={"kl_to_start_every": 0}), SIZES)
    assert demand.learners - off.learners == pytest.approx(4 * M135 / 2**20, abs=1)
    one, two = (
        demand_of(config(learner={"num_workers": number, "zero_stage": 0, "micro_batch_tokens": 1}), SIZES)
        for number in (1, 2)
    )
    assert two.learners - one.learners > 28 * M135 / 2**20  # without ZeRO every rank holds, and saves, everything
    gpu = {"gpus_per_rollout_worker": 1, "gpus_per_learner_worker": 1}
    assert demand_of(config(cluster=gpu), replace(SIZES, policy=10 * M135)).learners < 1_000


def test_sizes_are_those_of_the_files(tiny_model: Path) -> None:
    from safetensors.torch import load_file

    weights = load_file(tiny_model / "model.safetensors")
    number = sum(weight.numel() for name, weight in weights.items() if name != "lm_head.weight")  # it is tied
    model = ModelConfig(path=str(tiny_model))
    assert num_policy_weights(model) == num_critic_weights(model) == number
    run = config(model={"path": str(tiny_model)})
    found = model_sizes(run, needs_critic=True, has_reference=False)
    assert found == ModelSizes(policy=number, critic=number, num_layers=2, hidden=64, has_reference=False)


def test_check_says_what_is_needed(run_file: Path, tiny_model: Path, dvpo: Callable[..., Result]) -> None:
    found = dvpo("check", run_file, "--set", "cluster.object_store_mib=null")
    assert found.exit_code == 0, found.output
    for start in ("memory: about ", "shared memory: an object store of 256 MiB of ", "disk: about "):
        assert any(line.startswith(start) for line in found.output.splitlines()), found.output
    shape = json.loads((tiny_model / "config.json").read_text())
    assert shape["num_hidden_layers"] == 2


def test_records_of_tokens_count_as_logs() -> None:
    """100 steps of 640 KiB are 62.5 MiB; without logged trajectories there are none."""

    def logs(**logging: int) -> int:
        return demand_of(config(logging=logging), SIZES).logs

    assert logs(token_trace_kib=640) - logs(token_trace_kib=0) == pytest.approx(62.5, abs=1)
    assert logs(token_trace_kib=640, trajectory_samples_per_step=0) == logs(trajectory_samples_per_step=0)
