"""The checks before a run: resources against a given machine, data against a given tokenizer, and the plan."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.check.check import check_data, check_run, check_run_folder, data_warnings
from cluster.check.derived import derive, plan_lines
from cluster.check.machine import Machine, inspect_machine, machine_errors, machine_warnings, usable_cpus
from cluster.check.model import adapter_warnings
from cluster.config.model_folder import hub_is_reachable
from cluster.config.run_config import RunConfig, load_config
from rollout.component import StrictModel, UserError
from rollout.tasks.base import Example, Task

MACHINE = Machine(
    num_cpus=2,
    cpu_name="some CPU",
    cpu_flags=frozenset({"avx2"}),
    gpu_names=(),
    memory_available_mib=8000,
    shared_memory_free_mib=1000,
)


class Update(StrictModel):
    """An update shape on its own."""

    num_epochs: int = 1
    num_minibatches: int = 1


def config(*overrides: str) -> RunConfig:
    path = Path(os.environ["PYTEST_CONFIG"])
    return load_config(path, overrides)


@pytest.fixture(autouse=True)
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "model: {path: m}\ncluster: {cpus_per_rollout_worker: 0.5, cpus_per_learner_worker: 1}\n"
        "rollout: {max_prompt_tokens: 64, sampling: {max_response_tokens: 64}}"
    )
    monkeypatch.setenv("PYTEST_CONFIG", str(path))
    monkeypatch.chdir(tmp_path)


def test_a_run_that_fits() -> None:
    assert machine_errors(config("rollout.num_workers=2"), MACHINE) == []
    assert machine_warnings(config("rollout.num_workers=2"), MACHINE) == []


def test_more_cpus_than_there_are() -> None:
    (error,) = machine_errors(config("rollout.num_workers=3"), MACHINE)
    assert "needs 2.5 CPUs (3 rollout workers x 0.5 + 1 learner ranks x 1), this machine has 2" in error
    assert "cluster.num_cpus: 3" in error  # what would be right
    shared = config("rollout.num_workers=3", "cluster.num_cpus=3")
    assert machine_errors(shared, MACHINE) == []
    (warning,) = machine_warnings(shared, MACHINE)
    assert warning.startswith("cluster.num_cpus: the run needs 2.5 CPUs, this machine has 2")
    (error,) = machine_errors(config("rollout.num_workers=8", "cluster.num_cpus=4"), MACHINE)
    assert "cluster.num_cpus is 4" in error


def test_gpus() -> None:
    one = replace(MACHINE, gpu_names=("some GPU",))
    halves = ("cluster.gpus_per_rollout_worker=0.5", "cluster.gpus_per_learner_worker=0.5")
    assert machine_errors(config(*halves), one) == []
    (error,) = machine_errors(config(*halves), MACHINE)
    assert error.startswith("cluster.gpus_per_rollout_worker: the run needs 1 GPUs, this machine has 0")
    (error,) = machine_errors(config(*halves, "rollout.num_workers=2"), one)
    assert "needs 1.5 GPUs, this machine has 1" in error
    (warning,) = machine_warnings(config(), one)
    assert "1 GPUs and the run uses none" in warning


def test_shared_memory_and_slow_formats() -> None:
    (error,) = machine_errors(config("cluster.object_store_mib=1001"), MACHINE)
    assert "1001 MiB do not fit the 1000 MiB" in error
    assert machine_errors(config("cluster.object_store_mib=1001"), replace(MACHINE, shared_memory_free_mib=None)) == []
    (warning,) = machine_warnings(config("model.dtype=bfloat16"), MACHINE)
    assert warning.startswith("model.dtype: bfloat16")


def test_this_machine() -> None:
    found = inspect_machine()
    assert 1 <= found.num_cpus <= (os.cpu_count() or 1)
    assert found.num_cpus == usable_cpus()
    assert found.memory_available_mib > 0


def test_derived_quantities_by_hand() -> None:
    run = config(
        "training.prompts_per_step=10",
        "training.samples_per_prompt=3",
        "training.max_staleness=2",
        "rollout.max_prompt_tokens=60",
        "rollout.sampling.max_response_tokens=40",
        "learner.num_workers=2",
        "learner.micro_batch_tokens=450",
    )
    found = derive(run, Update(num_epochs=4, num_minibatches=2))
    assert found.trajectories_per_step == 30
    assert found.trajectories_per_minibatch == 15
    assert found.optimizer_steps_per_step == 8
    assert found.longest_tokens == 100
    # 15 a mini-batch, 8 on the fuller rank, 4 of 100 tokens in 450: 2 micro-batches; 2 mini-batches: 4
    assert found.micro_batches_per_step == 4
    assert found.max_trajectories_in_flight == 90


def test_a_trajectory_longer_than_a_micro_batch_goes_alone() -> None:
    run = config("training.prompts_per_step=3", "training.samples_per_prompt=1", "learner.micro_batch_tokens=10")
    assert derive(run, Update()).micro_batches_per_step == 3


def test_the_plan_in_words() -> None:
    run = config("training.prompts_per_step=64", "training.samples_per_prompt=2", "training.eval_every_steps=0")
    text = "\n".join(plan_lines(run, Update(num_minibatches=4)))
    assert "one step = 64 prompts x 2 = 128 trajectories, 4 optimiser steps (1 epoch x 4 mini-batches of 32)" in text
    assert "500 steps = 64,000 trajectories" in text
    assert "evaluation before and after" in text
    assert "resources: 1.5 CPUs, 0 GPUs, a private Ray on this machine" in text


class Questions(Task):
    """A task whose questions are given."""

    def __init__(self, **splits: Sequence[str]) -> None:
        super().__init__(StrictModel())
        self._splits = splits

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(name for name in self._splits if name != "train")

    def examples(self, split: str) -> Sequence[Example]:
        texts = self._splits[split]
        return [
            Example(example_id=f"{split}-{i}", messages=({"role": "user", "content": text},), reference=None)
            for i, text in enumerate(texts)
        ]


def test_data_is_measured_with_the_tokenizer(tiny_model: Path) -> None:
    from rollout.data.prompts import load_tokenizer

    tokenizer = load_tokenizer(str(tiny_model))
    task = Questions(train=["1+1", "12+12"], test=["1"])
    # <bos><user>12+12<assistant> is 8 tokens
    assert check_data(config("rollout.max_prompt_tokens=8"), task, tokenizer) == {"train": 2, "test": 1}
    with pytest.raises(UserError, match=r"max_prompt_tokens: 1 of 2 prompts of split 'train' .* 'train-1', has 8"):
        check_data(config("rollout.max_prompt_tokens=7"), task, tokenizer)
    with pytest.raises(UserError, match="split 'test' has no questions"):
        check_data(config(), Questions(train=["1"], test=[]), tokenizer)


def test_what_adapters_will_suffer_from_is_a_warning() -> None:
    assert adapter_warnings(config()) == []
    assert adapter_warnings(config("model.lora={}", "learner.policy_lr=2e-5")) == []
    (rate,) = adapter_warnings(config("model.lora={}"))
    assert rate.startswith("learner.policy_lr: 1e-06 is for whole weights")
    half = ("model.lora={}", "learner.policy_lr=2e-5", "model.dtype=bfloat16")
    (mixed,) = adapter_warnings(config(*half))
    assert mixed.startswith("model.lora: the learner computes in bfloat16") and "give both the same" in mixed
    assert adapter_warnings(config(*half, "rollout.dtype=bfloat16")) == []


def test_small_data_is_a_warning() -> None:
    assert data_warnings(config("training.prompts_per_step=5"), {"train": 5}) == []
    (warning,) = data_warnings(config("training.prompts_per_step=5"), {"train": 4})
    assert warning.startswith("training.prompts_per_step: 5 is more than the 4 training prompts")


def test_run_folder(tmp_path: Path) -> None:
    run = config("name=a", f"output_dir={tmp_path}/deep/runs")
    check_run_folder(run, None, False)
    assert not (tmp_path / "deep").exists()  # a check makes nothing
    run.run_dir.mkdir(parents=True)
    check_run_folder(run, None, False)
    (run.run_dir / "metrics.jsonl").touch()
    with pytest.raises(UserError, match="already holds a run"):
        check_run_folder(run, None, False)
    check_run_folder(run, "auto", False)
    check_run_folder(run, str(run.run_dir), False)
    check_run_folder(run, None, True)


def test_everything_at_once(tiny_model: Path) -> None:
    run = config(f"model.path={tiny_model}", "data.task.type=chain", "data.task.num_train=100", "algorithm=grpo")
    report = check_run(run, machine=MACHINE)
    assert report.errors == []
    assert report.warnings == []
    assert report.plan[0].startswith("run c: 500 steps")
    bad = config("model.path=./none", "data.task.type=none", "algorithm=none", "rollout.num_workers=9")
    errors = check_run(bad, machine=MACHINE).errors
    assert [error.split(":")[0] for error in errors] == [
        "data.task.type",
        "algorithm",
        "model.path",
        "cluster.cpus_per_rollout_worker",
    ]


def test_options_without_effect_are_warnings(tiny_model: Path) -> None:
    flags = ["algorithm=grpo", "learner.critic_warmup_steps=5", f"model.critic_path={tiny_model}"]
    report = check_run(config(f"model.path={tiny_model}", *flags), machine=MACHINE)
    keys = [warning.split(":")[0] for warning in report.warnings]
    assert keys == ["model.critic_path", "learner.critic_warmup_steps"]
    penalty = "algorithm.reward_correction=[{type: soft_overlong, max_tokens: 24, buffer_tokens: 8}]"
    for most, expected in ((16, ["algorithm.reward_correction.0"]), (17, [])):
        limited = config(
            f"model.path={tiny_model}", "algorithm=grpo", penalty, f"rollout.sampling.max_response_tokens={most}"
        )
        warnings = check_run(limited, machine=MACHINE).warnings
        assert [warning.split(":")[0] for warning in warnings] == expected


def test_what_changes_nothing_is_remarked_on(tiny_model: Path) -> None:
    base = [f"model.path={tiny_model}", "data.task.type=chain", "data.task.num_train=100"]

    def remarks(*overrides: str) -> list[str]:
        report = check_run(config(*base, *overrides), machine=MACHINE)
        assert report.errors == []
        assert report.warnings == []
        return [remark.split(":")[0] for remark in report.remarks]

    assert remarks("algorithm=backward-ppo") == ["algorithm.reward_correction.0", "algorithm.num_minibatches"]
    assert remarks("algorithm=nc-dr-grpo", "algorithm.num_epochs=2") == ["algorithm.reward_correction.0"]
    assert remarks("algorithm=forward-corrected", "algorithm.num_epochs=2") == []
    assert remarks("algorithm=grpo") == ["algorithm.num_minibatches"]


def test_resources_of_a_joined_cluster_are_not_judged_here(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = [f"model.path={tiny_model}", "algorithm=grpo", "rollout.num_workers=99"]
    assert len(check_run(config(*flags), machine=MACHINE).errors) == 1
    assert check_run(config(*flags, "cluster.address=auto"), machine=MACHINE).errors == []
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert check_run(config(*flags), machine=MACHINE).errors == []


def test_the_hub_is_not_waited_for_when_it_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert hub_is_reachable()
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        assert not hub_is_reachable()
        monkeypatch.delenv("HF_HUB_OFFLINE")
    assert not hub_is_reachable()  # nobody listens any more
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    assert hub_is_reachable()  # only the proxy knows


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("algorithm={preset: ppo, reward_correction: [evidence]}", False),
        ("algorithm=ppo", True),
        ("algorithm={preset: grpo, reward_correction: [mad_clip]}", True),
        ("algorithm=dvpo", True),
    ],
)
def test_gold_labels_that_nothing_reads_are_refused(algorithm: str, expected: bool) -> None:
    noise = "reward.noise=[{type: symmetric_flip, p: 0.3}]"
    settings = ["reward.gold_labels={share: 0.1}", noise, algorithm, "training.samples_per_prompt=2"]
    found = check_run(config(*settings), machine=MACHINE)
    assert any(error.startswith("reward.gold_labels: ") for error in found.errors) is expected


def test_rates_can_be_estimated_only_where_the_truth_is_known() -> None:
    wanted = "algorithm={preset: nc-dr-grpo, reward_correction: [{type: noise_corrected, false_positive_rate: 0.1, "
    wanted += "false_negative_rate: 0.1, estimated: true}]}"
    for gold, expected in (("[]", True), ("[{type: exact_match}]", False)):
        found = check_run(config(wanted, "training.samples_per_prompt=2", f"reward.gold={gold}"), machine=MACHINE)
        assert any("'estimated: true' needs trajectories whose true score" in e for e in found.errors) is expected
